"""If too many rows of a delivery are invalid, the message names the most frequent reason and its fix."""

import pytest

from slipway.errors import CheckFailed
from slipway.pipeline.validate import NONE, check_share


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("usage is missing", "or declare the column with `nullable=True`"),
        ("price is not a number", "without a decimal comma"),
        ("price is not in range", "correct or remove the delivery"),
    ],
)
def test_the_message_about_too_many_invalid_rows_contains_the_fix_for_the_most_frequent_reason(
    reason: str, fix: str
) -> None:
    counts = NONE.model_copy(update={"rows": 10, "quarantined": 5, "reasons": {reason: 4, "other": 1}})
    with pytest.raises(CheckFailed, match=fix):
        check_share("data/first.csv", counts, 0.1)
