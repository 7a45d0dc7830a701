"""The message of an unexpected error can quote a value of a row, so it is not printed."""

import sys
from typing import Any

import pytest

import slipway.cli
from slipway.serving.json_body import with_null_for_nan


def fail(body: Any) -> None:
    with_null_for_nan(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("my password is hunter2", "unexpected TypeError in json_body.py, line "),
        (ModuleNotFoundError("No module named 'dask'"), "unexpected ModuleNotFoundError: No module named 'dask';"),
    ],
)
def test_an_unexpected_error_is_named_without_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], body: Any, words: str
) -> None:
    def app(**_: Any) -> None:
        if isinstance(body, Exception):
            raise body
        try:
            fail(body)
        except TypeError as error:
            error.args = (body,)
            raise

    monkeypatch.setattr(slipway.cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["slipway", "train"])
    with pytest.raises(SystemExit, match="2"):
        slipway.cli.main()
    printed = " ".join(capsys.readouterr().err.split())
    assert words in printed
    assert "hunter2" not in printed
