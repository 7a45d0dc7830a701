"""The columns of the sample are marked as if the champion had been trained with the marks."""

import hashlib
import re
import shutil
from pathlib import Path

from demo.logged_requests import METRICS, mark_columns
from slipway import artifacts
from slipway.bundle import SCHEMA, Schema, folder_hash
from slipway.fork.init import OBJECTS
from tests.slipway.conftest import ROOT


def test_marks_of_the_demo_leave_the_lock_up_to_date(tmp_path: Path) -> None:
    for name in ("src/model", str(OBJECTS)):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "metrics").mkdir()
    for path in (artifacts.LOCK, artifacts.CHAMPION_DVC, *METRICS):
        shutil.copy(ROOT / path, tmp_path / path)
    mark_columns(tmp_path)
    lock = (tmp_path / artifacts.LOCK).read_text()
    bundle = artifacts.stated_hash((tmp_path / artifacts.CHAMPION_DVC).read_bytes()) or ""
    expected: dict[str, str] = {
        "champion": bundle,
        "build/bundle": bundle,
        "src/model": folder_hash(tmp_path / "src/model"),
    }
    for name in ("src/model/schema.py", *map(str, METRICS)):
        expected[name] = hashlib.md5((tmp_path / name).read_bytes(), usedforsecurity=False).hexdigest()
    assert {path: set(re.findall(rf"path: {path}\n +hash: md5\n +md5: (\w+)", lock)) for path in expected} == {
        path: {found} for path, found in expected.items()
    }
    objects = tmp_path / OBJECTS
    listing = (objects / bundle[:2] / f"{bundle[2:]}.dir").read_bytes()
    assert hashlib.md5(listing, usedforsecurity=False).hexdigest() == bundle
    (schema,) = re.findall(rf'"md5": "(\w+)", "relpath": "{SCHEMA}"', listing.decode())
    columns = Schema.model_validate_json((objects / schema[:2] / schema[2:]).read_bytes()).columns
    assert {column.private for column in columns} == {"no"}
