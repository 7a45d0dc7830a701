"""Tables in the terminal show values of the data unchanged, and do not break numbers."""

import pytest
from rich.console import Console
from rich.table import Table

from slipway.artifacts import EVALUATION, VERDICT, Evaluation, Holdout, Verdict
from slipway.cli.verdict_table import verdict_table
from slipway.monitoring.decay import decay_table
from slipway.pipeline.decay import DeliveryDecay, Measure, Part
from tests.slipway.conftest import ROOT


def printed(table: Table, width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def part(column: str | None, value: str) -> Part:
    loss, *biases = (
        Measure(value=each, confidence=0.95, interval=(-0.05123, 0.04567), at_release=0.2742, at_most=most)
        for each, most in ((0.2793, None), (0.3012, None), (-0.0182, -0.06), (-0.4321, None))
    )
    outputs = dict(zip(("billing", "[/]tech", "other"), biases, strict=True))
    return Part(column=column, value=value, rows=800, loss=loss, biases=outputs, sizes=dict.fromkeys(outputs, 1.0))


@pytest.mark.parametrize("name", ["[urgent] mail", "[/x] mail"])  # Rich reads both as markup
def test_the_table_of_a_verdict_shows_markup_in_the_name_of_a_slice(name: str) -> None:
    verdict, evaluation = Verdict.read(ROOT / VERDICT), Evaluation.read(ROOT / EVALUATION)
    named = verdict.slices[0].model_copy(update={"value": name})
    assert name in printed(verdict_table(verdict.model_copy(update={"slices": (named,)}), evaluation))


def test_the_table_of_decay_fits_into_80_characters_with_any_number_of_classes() -> None:
    holdout = Holdout(rows=800, first=None, last=None)
    decay = DeliveryDecay(
        delivery="[/]2026-07",
        champion="c" * 32,
        alarm=False,
        reason="",
        released_on=holdout,
        holdout=holdout,
        trained_on=0,
        judged_on=0,
        whole=part(None, "all"),
        slices=(part("channel", "[urgent] a name that is long enough for several lines"),),
        periods=(),
    )
    text = printed(decay_table(decay), 80)
    assert max(map(len, text.splitlines())) <= 80
    for words in ("[/]2026-07", "[urgent]", "0.2742", "0.2793", "-0.05123", "0.04567", "-0.0182", "[/]tech"):
        assert words in text
    assert "-0.4321" not in text  # the bias beyond its limit is shown first
