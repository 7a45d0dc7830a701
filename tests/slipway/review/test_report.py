"""The report as a file that anybody may have written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import InputError
from slipway.review.report import MOST_BYTES, Report, read_report


@pytest.fixture
def written(tmp_path: Path, report: Report) -> Callable[[Callable[[Any], Any]], Path]:
    def write(change: Callable[[Any], Any]) -> Path:
        told = json.loads(report.model_dump_json())
        file = tmp_path / "report.json"
        file.write_text(json.dumps(change(told) or told))
        return file

    return write


def test_what_was_written_is_read(written: Callable[..., Path], report: Report) -> None:
    assert read_report(written(lambda told: told)) == report


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["lineage"].update(commit="$(touch pwned)"),
        lambda told: told["lineage"].update(head="a" * 39),
        lambda told: told.update(pull_request=-1),
        lambda told: told.update(html="<b>"),
        lambda told: told.pop("changes"),
        lambda told: told.update(judged=None),
        lambda told: told.update(stopped={"stage": "train", "words": "so"}),
        lambda told: told["judged"]["points"].extend([told["judged"]["points"][0]] * 1_000),
        lambda told: told["judged"].update(unit="$" * 11),
        lambda told: told["changes"].update(rules=["x" * 201]),
        lambda told: told["changes"]["decay"].extend(told["changes"]["decay"] * 500),
        lambda told: told["changes"]["decay"][0].update(reason="x" * 2_001),
        lambda _: [1, 2],
        lambda _: "text",
    ],
)
def test_anything_else_is_refused(written: Callable[..., Path], change: Callable[[Any], Any]) -> None:
    with pytest.raises(InputError, match="report"):
        read_report(written(change))


def test_numbers_of_the_verdict_are_finite(written: Callable[..., Path]) -> None:
    def infinite(told: Any) -> None:
        told["judged"]["verdict"]["comparison"]["interval"] = [float("-inf"), float("nan")]

    with pytest.raises(InputError):
        read_report(written(infinite))


def test_numbers_are_finite(written: Callable[..., Path]) -> None:
    def infinite(told: Any) -> None:
        told["judged"]["points"][0]["actual"] = float("inf")

    with pytest.raises(InputError):
        read_report(written(infinite))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(InputError, match="at most"):
        read_report(file)


def test_a_link_is_not_followed(tmp_path: Path, written: Callable[..., Path]) -> None:
    real = written(lambda told: told)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    with pytest.raises(InputError, match="missing"):
        read_report(link)


def test_the_error_obeys_no_log(written: Callable[..., Path]) -> None:
    def newline(told: Any) -> None:
        told["judged"]["verdict"]["x\n::error::y"] = 1

    with pytest.raises(InputError) as error:
        read_report(written(newline))
    assert "\n" not in str(error.value)
