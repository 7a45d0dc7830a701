"""Numbers with units, as in verdicts, reports and charts."""

import pytest

from slipway.artifacts import Holdout
from slipway.config import Task
from slipway.pipeline.number_text import with_unit
from slipway.pipeline.verdict_text import Wording


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (635.2, "$", "$635"),
        (-635.2, "€", "-€635"),
        (0.7715, "points", "0.7715 points"),
        (-8.929, "bikes", "-8.929 bikes"),
        (21.5, "°C", "21.5 °C"),
        (12.0, "%", "12 %"),
        (4.2, "", "4.2"),
        (-1315.4, "", "-1,315"),
    ],
)
def test_a_currency_symbol_precedes_the_number_and_any_other_unit_follows_it(
    value: float, unit: str, text: str
) -> None:
    assert with_unit(value, unit) == text


def test_a_verdict_has_the_unit_of_the_loss() -> None:
    task = Task(kind="regression", loss="mean_absolute_error", unit="bikes")
    words = Wording(task, Holdout(rows=1000, first=None, last=None))
    assert words.amount(8.929) == "8.929 bikes"
    squared = task.model_copy(update={"loss": "mean_squared_error"})
    assert Wording(squared, words.holdout).amount(8.929) == "8.929"
