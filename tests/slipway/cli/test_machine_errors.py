"""An error of the disk is not a bug of Slipway. The message names the cause, the file and the fix."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.cli import pipeline
from tests.slipway.conftest import Result

Run = Callable[..., Result]


def _refuse(path: str) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)  # root can read every file


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (lambda: Path("/dev/full").write_text("x"), "No space left on device; free some space"),
        (lambda: _refuse("data/a.csv"), "Permission denied (data/a.csv); give your user access to it"),
    ],
)
def test_an_error_of_the_disk_is_explained_in_one_sentence(
    slipway: Run, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object], words: str
) -> None:
    monkeypatch.setattr(pipeline, "read_params", fail)
    result = slipway("validate")
    assert (result.code, result.err.count("\n"), "unexpected" in result.err) == (2, 1, False), result.err
    assert result.err.endswith(f"{words}, and run this again.\n")
