"""Each benchmark runs as a module, and ends in one sentence if it lacks a repository or data."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.errors import InputError
from tests.slipway.conftest import ROOT

FOLDER = ROOT / "benchmarks"
FILES = [file for file in FOLDER.rglob("*.py") if "    exit_with(main)\n" in file.read_text()]
SIMULATED = {"live_performance"}
"""Benchmarks that read no data. test_live_decay.py runs this one with fewer trials."""
NAMES = sorted({".".join(file.relative_to(FOLDER).with_suffix("").parts) for file in FILES} - SIMULATED)
ALL = """\
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name]
    sys.modules.pop(f"benchmarks.{name}", None)  # another benchmark may have imported it
    try:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        print(name, stop.code, flush=True)
"""


def test_each_benchmark_without_data_ends_in_one_sentence(tmp_path: Path) -> None:
    """In one process, which `python -m` would run too."""
    shutil.copytree(FOLDER, tmp_path / "benchmarks")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-c", ALL, *NAMES], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert {"gate", "release", "serving.throughput"} < {*NAMES}
    assert done.stdout.splitlines() == [f"{name} 2" for name in NAMES], done.stdout + done.stderr
    assert re.fullmatch(r"(benchmark: .+\n)+", done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == len(NAMES)


def test_the_docs_have_the_table_of_billed_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    minutes = importlib.import_module("benchmarks.minutes")
    workflows = minutes.read(ROOT / ".github/workflows")
    assert "\n".join(minutes.table(workflows)) in (ROOT / "docs/runners.md").read_text()
    jobs = {name: set(workflow["jobs"]) for name, workflow in workflows.items()}
    assert {name: set(seconds) for name, seconds in minutes.SECONDS.items()} == jobs


def test_a_job_is_billed_in_whole_minutes_for_each_run_of_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    minutes = importlib.import_module("benchmarks.minutes")
    monkeypatch.setattr(minutes, "SECONDS", {"a.yml": {"a": 46, "b": 45}})
    setup = {"uses": "./.github/actions/setup", "with": {"requirements": "ci"}}  # 15 seconds
    jobs = {name: {"steps": [setup]} for name in ("a", "b")}
    workflows = {"a.yml": {"name": "A", "on": {"schedule": [{"cron": "17 * * * *"}]}, "jobs": jobs}}
    assert [minutes.minutes(workflows, "a.yml", job) for job in jobs] == [2, 1]
    assert minutes.scheduled(workflows) == {("a.yml", "a"): 720, ("a.yml", "b"): 720}
    assert [minutes.runs_of(cron) for cron in ("41 4 * * 1", "23 3 * * *")] == [4, 30]
    with pytest.raises(InputError, match="cannot count the schedule"):
        minutes.runs_of("0 0 1 * *")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_names_that_a_benchmark_imports_exist(file: Path) -> None:
    """Also the names that a function imports, which only a whole run would use."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slipway"):
            module = importlib.import_module(node.module or "")
            for each in node.names:
                if not hasattr(module, each.name):
                    importlib.import_module(f"{node.module}.{each.name}")
