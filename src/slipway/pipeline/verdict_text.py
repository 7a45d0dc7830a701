"""Verdicts as sentences that a person decides from."""

from dataclasses import dataclass

from slipway.artifacts import Comparison, FloorVerdict, Holdout, SliceVerdict
from slipway.config import Task


@dataclass(frozen=True)
class Wording:
    """The words of params.yaml's `task`, applied to one holdout."""

    task: Task
    holdout: Holdout

    @property
    def loss(self) -> str:
        return self.task.loss.replace("_", " ")

    @property
    def rows(self) -> str:
        period = f" from {self.holdout.first} to {self.holdout.last}" if self.holdout.first else ""
        return f"{self.holdout.rows:,} {self.task.row_noun}{period}"

    def amount(self, value: float) -> str:
        """A loss, with the unit of the target where the loss has it."""
        return f"{'-' if value < 0 else ''}{self.task.unit_of_loss}{number(abs(value))}"

    def change(self, comparison: Comparison, reference_loss: float) -> str:
        """`falls by $822 (6.9%), 95% interval [353, 1,315]`; the interval is that of the fall, or of the rise."""
        low, high = comparison.interval
        verb, ends = ("falls", (low, high)) if comparison.difference >= 0 else ("rises", (-high, -low))
        share = f" ({abs(comparison.difference) / reference_loss:.1%})" if reference_loss else ""
        interval = ", ".join(map(number, ends))
        confidence = f"{comparison.confidence * 100:.4g}%"
        return f"{verb} by {self.amount(abs(comparison.difference))}{share}, {confidence} interval [{interval}]"

    def better(self, comparison: Comparison, reference_loss: float, *, against_baseline: bool) -> str:
        change = f"{self.loss} {self.change(comparison, reference_loss)}"
        if against_baseline:
            return f"there is no champion yet; against the naive baseline {change}, on {self.rows}"
        return f"{change}, on {self.rows} that neither model has seen"

    def not_better(self, comparison: Comparison, reference_loss: float, margin: float) -> str:
        change = f"{self.loss} {self.change(comparison, reference_loss)}, on {self.rows}"
        if comparison.difference < 0:
            return change
        wanted = f"more than the margin of {margin:.1%}" if margin else "an improvement"
        return f"{change}: that does not show {wanted}"

    def worse_slice(self, comparison: Comparison, reference_loss: float, part: SliceVerdict) -> str:
        return (
            f"{self.loss} {self.change(comparison, reference_loss)}, on the whole, but where "
            f"{part.column} is {part.value} it {self.change(part.comparison, part.reference_loss)}, "
            f"on {part.comparison.rows:,} {self.task.row_noun}"
        )

    def too_few(self, minimum: int, minimum_groups: int | None) -> str:
        groups = f", in {minimum_groups} groups or more" if minimum_groups else ""
        return f"{self.rows} are too few to judge; gate.minimum_rows asks for {minimum:,}{groups}"

    def below_floor(self, floor: FloorVerdict) -> str:
        return (
            f"{floor.metric.replace('_', ' ')} is {floor.value:.4g} on {self.rows}, "
            f"and gate.floors asks for {floor.bound}"
        )

    def below_baseline(self, loss: float, baseline: float) -> str:
        return (
            f"{self.loss} is {self.amount(loss)}, no better than the naive baseline's {self.amount(baseline)}, "
            f"on {self.rows}"
        )

    def unchanged(self, same: str, within: float) -> str:
        if same == "bytes":
            return "the challenger is the champion, byte for byte"
        return f"every answer agrees with the champion's within {within:g}, on {self.rows}"


def number(value: float) -> str:
    """As many digits as a person needs: `1,315`, `0.04213`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
