"""The report as an untrusted file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import InputError
from slipway.review.report import MAX_BYTES, Report, read_report


@pytest.fixture
def written(tmp_path: Path, report: Report) -> Callable[[Callable[[Any], Any]], Path]:
    def write(change: Callable[[Any], Any]) -> Path:
        content = json.loads(report.model_dump_json())
        file = tmp_path / "report.json"
        file.write_text(json.dumps(change(content) or content))
        return file

    return write


def test_a_written_report_is_read(written: Callable[..., Path], report: Report) -> None:
    assert read_report(written(lambda content: content)) == report


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["revision"].update(commit="$(touch pwned)"),
        lambda content: content["revision"].update(head="a" * 39),
        lambda content: content.update(pull_request=-1),
        lambda content: content.update(html="<b>"),
        lambda content: content.pop("changes"),
        lambda content: content.update(result=None),
        lambda content: content.update(stopped={"stage": "train", "reason": "so"}),
        lambda content: content["result"]["points"].extend([content["result"]["points"][0]] * 1_000),
        lambda content: content["result"].update(unit="$" * 51),
        lambda content: content["changes"].update(rules=["x" * 201]),
        lambda content: content["changes"]["decay"].extend(content["changes"]["decay"] * 500),
        lambda content: content["changes"]["decay"][0].update(reason="x" * 2_001),
        lambda _: [1, 2],
        lambda _: "text",
    ],
)
def test_an_invalid_report_is_refused(written: Callable[..., Path], change: Callable[[Any], Any]) -> None:
    with pytest.raises(InputError, match="report"):
        read_report(written(change))


def test_infinite_numbers_of_the_verdict_are_refused(written: Callable[..., Path]) -> None:
    def infinite(content: Any) -> None:
        content["result"]["verdict"]["comparison"]["interval"] = [float("-inf"), float("nan")]

    with pytest.raises(InputError):
        read_report(written(infinite))


def test_infinite_numbers_are_refused(written: Callable[..., Path]) -> None:
    def infinite(content: Any) -> None:
        content["result"]["points"][0]["actual"] = float("inf")

    with pytest.raises(InputError):
        read_report(written(infinite))


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="at most"):
        read_report(file)


def test_a_link_is_not_followed(tmp_path: Path, written: Callable[..., Path]) -> None:
    real = written(lambda content: content)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    with pytest.raises(InputError, match="missing"):
        read_report(link)


def test_the_error_is_one_line(written: Callable[..., Path]) -> None:
    def newline(content: Any) -> None:
        content["result"]["verdict"]["x\n::error::y"] = 1

    with pytest.raises(InputError) as error:
        read_report(written(newline))
    assert "\n" not in str(error.value)
