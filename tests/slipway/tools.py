"""Programs and libraries that tests need besides Python. `require` skips a test without them.

`make tools` installs those of tools.txt. The last lines of a run list what was missing.
"""

import ctypes
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "build/tools"
"""The folder where .ci/tools installs programs that are not Debian packages."""
TORCH = FOLDER / "torch"
"""The folder where `.ci/tools torch` installs PyTorch."""
TABLE = Path(__file__).with_name("tools.txt")
ROWS = [line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#")]
SOURCES = {program: (source, package) for program, source, package in ROWS}
LINUX = "Linux"
REASON = "needs "


def search() -> None:
    """Let this process and those that it starts find the programs in build/tools first."""
    folders = os.environ["PATH"].split(os.pathsep)
    if str(FOLDER) not in folders:
        os.environ["PATH"] = os.pathsep.join([str(FOLDER), *folders])


def require(*programs: str) -> str:
    """Return the path of the first program. Skip the test, or the module, if a program or a library is missing."""
    unknown = [each for each in programs if each not in SOURCES]
    assert not unknown, f"add {unknown} to {TABLE.name}"
    missing = [each for each in programs if not _is_installed(each)]
    if missing:
        pytest.skip(REASON + ", ".join(missing), allow_module_level=True)
    return str(shutil.which(programs[0]))


def require_torch() -> Path:
    """Return the folder to add to PYTHONPATH for PyTorch. Skip the test if PyTorch is missing."""
    if not (TORCH / "torch").is_dir():
        pytest.skip(REASON + TORCH.name, allow_module_level=True)
    return TORCH


def _is_installed(program: str) -> bool:
    if not program.startswith("lib"):
        return shutil.which(program) is not None
    try:
        ctypes.CDLL(program)
    except OSError:
        return False
    return True


def require_linux() -> None:
    """Skip the test on another system."""
    if sys.platform != "linux":
        pytest.skip(REASON + LINUX)


def command(program: str) -> str:
    """Return the command or the package manager that installs a program on this machine."""
    if program == LINUX:
        return "run these tests on Linux"
    if program == TORCH.name:
        return "make torch"
    source, package = SOURCES[program]
    if source != "apt":
        return "make tools"
    return f"sudo apt-get install {package}" if shutil.which("apt-get") else f"the package manager: {package}"


def summary(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Return a table of the missing programs with the number of skipped tests, or nothing without skipped tests."""
    reasons = [str(report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple)]
    needs = [reason.partition(REASON)[2].split(", ") for reason in reasons if REASON in reason]
    counts = Counter(program for programs in needs for program in programs)
    if not counts:
        return []
    rows = [(program, str(count), command(program)) for program, count in counts.most_common()]
    rows.insert(0, ("missing", "skipped tests", "to get it"))
    return ["", *(f"{program:<12}{count:>13}  {how}" for program, count, how in rows)]
