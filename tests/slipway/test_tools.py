"""A test that needs a missing program is skipped and listed at the end of the run; in CI it fails."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.slipway import tools
from tests.slipway.conftest import ROOT

NEEDS = """\
import pytest
from tests.slipway.tools import require

@pytest.fixture(scope="session")
def engine():
    return require("podman", "runc")

@pytest.mark.parametrize("number", range(3))
def test_in_a_container(engine, number): ...

def test_with_metrics():
    require("prometheus")

def test_without_programs(): ...
"""


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the tests above in a worker, as `make test` does, with a PATH that contains no programs."""
    (folder / "test_needs.py").write_text(NEEDS)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables}
    options = ("-p", "xdist", "--numprocesses", "1", "-p", "tests.slipway.conftest", "-c", "pyproject.toml")
    options += ("--basetemp", str(folder / "temporary"))  # old folders of other runs would add warnings to the counts
    command = [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", str(folder / "test_needs.py")]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_last_lines_list_missing_programs(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("1 passed, 4 skipped in", done.stdout)
    assert [line.split()[:3] for line in done.stdout.splitlines()[-4:]] == [
        ["missing", "skipped", "tests"],
        ["podman", "3", "the"],
        ["runc", "3", "the"],
        ["prometheus", "1", "the"],
    ]


def test_in_ci_a_skipped_test_fails(tmp_path: Path) -> None:
    done = run(tmp_path, CI="true")
    assert done.returncode == 1
    assert "1 failed, 1 passed, 3 errors in" in done.stdout


def test_make_test_loads_what_prints_the_list() -> None:
    """At the start, pytest loads only the conftest.py of its test paths, so the one that prints must be among them."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["testpaths"]
    assert ROOT / "tests/slipway" in [path for pattern in patterns for path in ROOT.glob(pattern)]


def test_how_to_get_a_program_is_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "apt-get").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.command("promtool") == "sudo apt-get install prometheus"
    assert tools.command("kustomize") == "make tools"
    assert tools.command("torch") == "make torch"


def test_a_test_is_skipped_without_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "TORCH", tmp_path / "torch")
    with pytest.raises(pytest.skip.Exception, match=r"^needs torch$"):
        tools.require_torch()
    (tmp_path / "torch/torch").mkdir(parents=True)
    assert tools.require_torch() == tmp_path / "torch"


def test_no_test_skips_in_another_way() -> None:
    """A skip that names no program would not be in the list."""
    other = re.compile(r"pytest\.(skip|importorskip)\(|mark\.skip")
    files = {file.name for file in (ROOT / "tests").rglob("*.py") if other.search(file.read_text())}
    assert files == {"tools.py"}
