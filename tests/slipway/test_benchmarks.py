"""Each benchmark runs as a module, and ends in one sentence if it lacks a repository or data."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.slipway.conftest import ROOT

FOLDER = ROOT / "benchmarks"
FILES = [file for file in FOLDER.rglob("*.py") if "    exit_with(main)\n" in file.read_text()]
NAMES = sorted(".".join(file.relative_to(FOLDER).with_suffix("").parts) for file in FILES)
ALL = """\
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name]
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
