"""The prediction log of the demo. Clients request the prices of houses whose sales are in the next delivery.

The production servers log the requests, `slipway join` finds the true price for each request, and reports replay the
requests. A replay only uses requests from before the day of the commit, so the clocks of these servers are one day
behind.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slipway import artifacts
from slipway.bundle import SCHEMA, Schema, folder_hash
from slipway.fork.init import OBJECTS
from slipway.serving.log_segments import read_segment, segments
from slipway.serving.problems import Problem, pointer
from slipway.serving.records import Records

CLOCK = Path(__file__).parent / "fakes/yesterday"
DAYS_BEHIND = timedelta(days=1)
SALES = 300
"""Clients send this number of a delivery's newest sales. These sales are in the holdout, so no model is trained on
them.
"""
METRICS = (artifacts.EVALUATION, artifacts.VERDICT, artifacts.RELEASE)
MARKS = """
# Sales are public, so the prediction log may contain all columns.
SCHEMA = SCHEMA.update_columns({name: {"metadata": {"private": "no"}} for name in SCHEMA.columns})
"""


@dataclass(frozen=True)
class LoggedRequests:
    """The folder with all files of the log: the segments of each replica, shipped files, labels, and joined rows."""

    folder: Path

    @property
    def joined(self) -> Path:
        return self.folder / "joined"

    @property
    def shipped(self) -> Path:
        return self.folder / "shipped"

    @property
    def labels(self) -> Path:
        return self.folder / "labels.csv"

    @property
    def replicas(self) -> list[Path]:
        """The folders with the segments of each replica."""
        return sorted((self.folder / "replicas").glob("*"))

    @property
    def rows(self) -> int:
        """The number of rows in segments that are not shipped yet."""
        return sum(read_segment(path).header.rows for folder in self.replicas for path in segments(folder))

    def variables(self, replica: int) -> dict[str, str]:
        """Return the environment variables that turn the log of a replica on."""
        return {
            "SLIPWAY_PREDICTION_LOG": str(self.folder / f"replicas/{replica}"),
            "SLIPWAY_PREDICTION_LOG_SECONDS": "0.5",
        }

    def write_labels(self, delivery: Path) -> None:
        """Write the sales in a delivery as labels. They become known on the day of the requests."""
        known_at = (datetime.now(UTC) - DAYS_BEHIND).date()
        header, *rows = delivery.read_text(encoding="utf-8").splitlines()
        lines = [f"{header},known_at", *(f"{row},{known_at}" for row in rows)]
        self.labels.write_text("\n".join(lines) + "\n", encoding="utf-8")


def request_bodies(delivery: Path, schema: Schema) -> list[bytes]:
    """Return request bodies for the newest sales in a delivery. Leave out sales that the server would refuse."""
    with delivery.open(encoding="utf-8", newline="") as text:
        newest = list(csv.DictReader(text))[-SALES:]
    return [json.dumps(record).encode() for record in _accepted(newest, schema)]


def _accepted(rows: list[dict[str, str]], schema: Schema) -> Iterator[dict[str, float | str]]:
    reader = Records(schema, 1)
    numbers = set(schema.numbers) - {column.name for column in schema.columns if column.type == "date"}
    for row in rows:
        names = [each.name for each in schema.columns]
        record = {name: float(row[name]) if name in numbers else row[name] for name in names}
        try:
            reader.from_rows([record], pointer)
        except Problem:
            continue
        yield record


def mark_columns(repository: Path) -> None:
    """Mark all columns as not private, as if the champion had been trained with these marks.

    In a bundle, marks change only the schema. This function therefore edits the schema, and all hashes that depend on
    it, without running the pipeline. The result equals what the pipeline would compute.
    """
    with (repository / "src/model/schema.py").open("a", encoding="utf-8") as file:
        file.write(MARKS)
    objects, pointer_file = repository / OBJECTS, repository / artifacts.CHAMPION_DVC
    old = artifacts.stated_hash(pointer_file.read_bytes()) or ""
    listing = json.loads(_object(objects, f"{old}.dir").read_bytes())
    (entry,) = (each for each in listing if each["relpath"] == SCHEMA)
    schema = Schema.model_validate_json(_object(objects, entry["md5"]).read_bytes())
    columns = tuple(each.model_copy(update={"private": "no"}) for each in schema.columns)
    entry["md5"] = _add(objects, schema.model_copy(update={"columns": columns}).content())
    new = _add(objects, json.dumps(listing).encode(), ".dir")
    lock = repository / artifacts.LOCK
    for path in (pointer_file, lock, *(repository / each for each in METRICS)):
        _replace_text(path, old, new)
    text = lock.read_text(encoding="utf-8")
    for name in ("src/model/schema.py", *map(str, METRICS)):
        found = hashlib.md5((repository / name).read_bytes(), usedforsecurity=False).hexdigest()
        text = re.sub(rf"(?<=path: {name}\n      hash: md5\n      md5: )\w+", found, text)
    found = folder_hash(repository / "src/model")
    text = re.sub(r"(?<=path: src/model\n      hash: md5\n      md5: )\w+", found, text)
    lock.write_text(text, encoding="utf-8")


def _replace_text(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def _object(objects: Path, name: str) -> Path:
    return objects / name[:2] / name[2:]


def _add(objects: Path, content: bytes, suffix: str = "") -> str:
    """Add a file to a DVC remote, and return its hash."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    file = _object(objects, found + suffix)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return found
