"""Write the reasons of verdicts as sentences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slipway.artifacts import Comparison, Evaluation, FloorVerdict, Holdout, SliceVerdict
from slipway.config import Gate, Task
from slipway.pipeline.number_text import about, number, with_unit
from slipway.statistics.blocks import MINIMUM_BLOCKS, MINIMUM_PARTS, Mean

INDEPENDENT = 0.95
"""The verdict mentions the number of independent rows only if it is below this share of the number of rows."""


@dataclass(frozen=True)
class Wording:
    """Sentences about one holdout. The loss, the unit and the noun for rows come from `task` in params.yaml."""

    task: Task
    holdout: Holdout

    @property
    def loss(self) -> str:
        return self.task.loss_name.replace("_", " ")

    @property
    def rows(self) -> str:
        period = f" from {self.holdout.first} to {self.holdout.last}" if self.holdout.first else ""
        return f"{self.holdout.rows:,} {self.task.row_noun}{period}"

    def amount(self, value: float) -> str:
        """Format a loss. Add the unit of the target if the loss is measured in it."""
        return with_unit(value, self.task.unit_of_loss)

    def change(self, comparison: Comparison, reference_loss: float) -> str:
        """Describe the change of the loss, such as `falls by $822 (6.9%), 95% interval [353, 1,315]`."""
        low, high = comparison.interval or (math.nan, math.nan)
        verb, ends = ("falls", (low, high)) if comparison.difference >= 0 else ("rises", (-high, -low))
        share = f" ({abs(comparison.difference) / reference_loss:.1%})" if reference_loss else ""
        interval = ", ".join(map(number, ends))
        confidence = f"{comparison.confidence * 100:.4g}%"
        return f"{verb} by {self.amount(abs(comparison.difference))}{share}, {confidence} interval [{interval}]"

    def better(self, comparison: Comparison, evaluation: Evaluation, rules: Gate) -> str:
        champion, baseline, counted = evaluation.champion, evaluation.baseline.loss, self.counted(comparison)
        if champion is None:
            change = f"{self.loss} {self.change(comparison, baseline)}"
            return f"there is no champion yet; against the naive baseline {change}, on {self.rows}{counted}"
        change = f"{self.loss} {self.change(comparison, champion.loss)}"
        if comparison.interval and comparison.interval[0] <= 0:  # the model ships only because of a negative margin
            change = f"{change}, not worse than {-rules.margin * 100:.3g}%, wanted for: {rules.margin_reason}"
        missed = ""
        if not evaluation.challenger.loss < baseline:
            missed = (
                f"; the naive baseline's {self.amount(baseline)} is better than the challenger's "
                f"{self.amount(evaluation.challenger.loss)}, which is better than the champion's "
                f"{self.amount(champion.loss)}"
            )
        return f"{change}, on {self.rows} that neither model was trained on{missed}{counted}"

    def not_better(self, comparison: Comparison, reference_loss: float, rules: Gate) -> str:
        change = f"{self.loss} {self.change(comparison, reference_loss)}, on {self.rows}"
        if rules.margin < 0:
            worse = f"it can be more than {-rules.margin * 100:.3g}% worse, the margin wanted for"
            return f"{change}: {worse}: {rules.margin_reason}{self.counted(comparison)}"
        if comparison.difference < 0:
            return f"{change}{self.counted(comparison)}"
        wanted = f"more than the margin of {rules.margin:.1%}" if rules.margin else "an improvement"
        return f"{change}: that does not show {wanted}{self.counted(comparison)}"

    def worse_slice(self, comparison: Comparison, reference_loss: float, part: SliceVerdict) -> str:
        also = "but" if comparison.difference >= 0 else "and"
        return (
            f"{self.loss} {self.change(comparison, reference_loss)}, on the whole, {also} where "
            f"{part.column} is {part.value} it {self.change(part.comparison, part.reference_loss)}, "
            f"on {part.comparison.rows:,} {self.task.row_noun}{self.counted(part.comparison)}"
        )

    def counted(self, mean: Comparison | Mean) -> str:
        """Return words about the number of independent rows, or "" if rows are independent.

        Example: `; 25,232 flights in 14 days count like 1,900 independent ones`.
        """
        blocks = _blocks(mean)
        if not blocks or mean.effective_rows >= INDEPENDENT * mean.rows:
            return ""
        like = about(mean.effective_rows)
        return f"; {mean.rows:,} {self.task.row_noun} in {blocks} count like {like} independent ones"

    def too_few(self, mean: Comparison | Mean, minimum: int) -> str:
        counted = f", of which {mean.rows:,} have a weight above 0," if mean.rows < self.holdout.rows else ""
        return f"{self.rows}{counted} are too few to judge; gate.minimum_rows asks for {minimum:,}"

    def too_few_blocks(self, mean: Comparison | Mean) -> str:
        """Explain why there is no interval, such as `700 flights come from 7 days, too few to judge; 10 are needed`."""
        few = min(count for count in (mean.days, mean.groups, mean.rows) if count is not None)
        like, needed = "", MINIMUM_PARTS
        if few >= MINIMUM_PARTS:
            like, needed = f" that count like {about(mean.blocks)} independent ones", MINIMUM_BLOCKS
        return f"{self.rows} come from {_blocks(mean)}{like}, too few to judge; {needed} are needed"

    def hold_out_more(self, comparison: Comparison) -> str:
        """Return the settings to raise for a larger holdout.

        Return "" if holdout rows are left out, because one of these settings was then raised recently.
        """
        if self.holdout.left_out:
            return ""
        settings = {"split.days": comparison.days, "split.share": comparison.groups}
        return f", so raise {' or '.join(name for name, count in settings.items() if count is not None)}"

    def left_out(self, *, held: bool) -> str:
        """Return words about the holdout rows that are left out, or "".

        If `held` is True, the words include what to do.
        """
        if not self.holdout.left_out:
            return ""
        remedy = (
            "; they count once a model that was not trained on them is live: after a raised split.days, accept a small "
            "loss by a negative gate.margin, or add the label ship-anyway"
        )
        count = f"{self.holdout.left_out:,} more were held out and do not count, as the champion was trained on them"
        return f"; {count}{remedy if held else ''}"

    def looks(self, look: int) -> str:
        """Return words about the models that were compared on this holdout before, or "" for the first model."""
        if look == 1:
            return ""
        others = "another model was" if look == 2 else f"{look - 1:,} other models were"
        return f"; {others} judged on this holdout before, so the interval is wider"

    def below_floor(self, floor: FloorVerdict) -> str:
        return (
            f"{floor.metric.replace('_', ' ')} is {floor.value:.4g} on {self.rows}, "
            f"and {floor.of} asks for {floor.bound}"
        )

    def below_baseline(self, evaluation: Evaluation) -> str:
        loss, baseline = evaluation.challenger.loss, evaluation.baseline.loss
        live = f"; the champion's is {self.amount(evaluation.champion.loss)}" if evaluation.champion else ""
        return (
            f"{self.loss} is {self.amount(loss)}, no better than the naive baseline's {self.amount(baseline)}, "
            f"on {self.rows}{live}"
        )

    def unchanged(self, same: str, within: float) -> str:
        if same == "bytes":
            return "the challenger is the champion, byte for byte"
        return f"every answer agrees with the champion's within {within:g}, on {self.rows}"

    def changes_server(self, same: str, within: float, changes: Sequence[str]) -> str:
        """Return the reason why a model with the champion's predictions ships."""
        return f"{self.unchanged(same, within)}, and the bundle changes the server: {', '.join(changes)}"


def _blocks(mean: Comparison | Mean) -> str:
    """Return `14 days`, `30 groups`, or `14 days and 30 groups`."""
    counts = {"day": mean.days, "group": mean.groups}
    return " and ".join(
        f"{count:,} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count is not None
    )
