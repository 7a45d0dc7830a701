"""Measure drift and decay over the deliveries of the sample: `python -m benchmarks.replay [--plot docs/decay.svg]`.

The pipeline trains, judges and releases a model on the two deliveries from 1993. This frozen model is never replaced.
The later deliveries are then processed one after another. For each delivery, the benchmark computes the decay of the
frozen model, as `slipway decay` does. It also computes the drift of each feature, which is the PSI between the delivery
and the training rows, with the bins that the server uses. The date of the sale is left out, because it always
increases. For comparison, a second model is trained again before each delivery, on all earlier deliveries.

The last step measures false alarms. From the same scored delivery, it draws 577 sales as the holdout of a release and
1,900 sales as a new delivery, with replacement. The two samples differ only by chance, so any alarm is false.

Required:

- The frozen model raises the decay alarm by 1994H2 and in every later delivery. - At most 5% of the PSIs of all
features and deliveries are above 0.1. As a rule of thumb, a larger PSI means some drift. - At most 5% of the
false-alarm trials raise an alarm.
"""

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.table import Table

from benchmarks.scratch import REPOSITORY, clone, console, exit_with, require
from slipway import artifacts
from slipway.artifacts import Holdout, Release
from slipway.bundle import REFERENCE, FeatureReference, Reference, load_bundle
from slipway.config import Params, load_params
from slipway.contract import Model, load_model
from slipway.pipeline import evaluate, gate, split, train, validate
from slipway.pipeline.columns import DELIVERY
from slipway.pipeline.decay import LOSS, DeliveryDecay, answer_for, decay_on, judge
from slipway.pipeline.number_text import with_unit
from slipway.statistics.psi import population_stability

FIRST_YEAR = ("1993H1", "1993H2")
ALARM_BY = "1994H2"
FROZEN_AT = Path("frozen")
TRIALS = 20  # for each delivery
DRAWN = {"release": 577, "delivery": 1_900}
MOST_FALSE = 0.05
SOME = 0.1  # as a rule of thumb, a PSI above 0.1 means some drift, and above 0.25 large drift
MOST_DRIFTED = 0.05
INK, LINE, FROZEN, RENEWED, QUIET = "#7a828a", "#7a828a55", "#d1603d", "#2a8fa3", "#8a929a"
"""Colors with medium brightness, so that the plot is readable on a light and on a dark background."""


@dataclass(frozen=True)
class Step:
    """The results for a delivery, computed with models that were trained on earlier deliveries."""

    frozen: DeliveryDecay
    renewed: DeliveryDecay
    drift: Mapping[str, float]
    scored: pd.DataFrame
    """The rows of the delivery, scored by the model that is trained again for each delivery."""


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc")
        params = load_params(REPOSITORY / artifacts.PARAMS)
        deliveries = sorted(
            [*(repository / artifacts.DATA).glob("*.csv"), *(repository / params.ingest.source).glob("*.csv")],
            key=lambda file: file.name,
        )
        steps = replay(deliveries, Path(folder) / "replay", params, load_model())
    console.print(table(steps, params))
    false_alarms = trials(steps, params)
    if arguments.plot:
        arguments.plot.write_bytes(draw(steps, params))
        console.print(f"\n[dim]{arguments.plot} written[/]")
    return require(requirements(steps, false_alarms))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="path of the SVG file to write")
    return parser.parse_args()


def replay(deliveries: list[Path], place: Path, params: Params, model: Model) -> dict[str, Step]:
    """Create the folder `place`, and compute the results for each delivery after 1993 in it."""
    steps: dict[str, Step] = {}
    for folder in (artifacts.DATA, artifacts.EVALUATION.parent, artifacts.CHAMPION):
        (place / folder).mkdir(parents=True)
    with chdir(place):
        for file in deliveries:
            arrives_after = file.stem > FIRST_YEAR[-1]
            if arrives_after:
                release_model(params, model)
                if not steps:
                    shutil.copytree(artifacts.CHAMPION, FROZEN_AT)
                    frozen = Release.read(artifacts.RELEASE)
            shutil.copyfile(file, artifacts.DATA / file.name)
            if arrives_after:
                steps[file.stem] = _step(file.stem, frozen, params, model)
    return steps


def _step(name: str, frozen: Release, params: Params, model: Model) -> Step:
    deliveries = list(validate.check_deliveries(artifacts.DATA, model, params.validate_, _today()))
    rows = validate.accepted_rows(deliveries)
    arrived = rows[rows[DELIVERY] == name]
    renewed = load_bundle(artifacts.CHAMPION)
    reference = Reference.model_validate_json((FROZEN_AT / REFERENCE).read_bytes())
    return Step(
        frozen=decay_on(name, rows, load_bundle(FROZEN_AT), frozen, params, model),
        renewed=decay_on(name, rows, renewed, Release.read(artifacts.RELEASE), params, model),
        drift=_drift(arrived, reference, model),
        scored=answer_for(arrived, renewed, params, model),
    )


def release_model(params: Params, model: Model) -> None:
    """Train and judge a model on data/ as if there were no champion, and release it as `slipway candidate` does."""
    none = Release(champion=None)
    none.write(artifacts.RELEASE)
    shutil.rmtree(artifacts.CHAMPION)
    validate.run(params, model, _today())
    split.run(params, model)
    train.run(params, model)
    evaluate.run(params, model)
    verdict = gate.run(params)
    shutil.copytree(artifacts.BUNDLE, artifacts.CHAMPION)
    Release.of_challenger(verdict, none).write(artifacts.RELEASE)


def _today() -> date:
    return datetime.now(UTC).date()


def _drift(rows: pd.DataFrame, reference: Reference, model: Model) -> dict[str, float]:
    """Return the PSI of each feature between a delivery and the training rows."""
    return {
        name: population_stability(np.array(before.counts), _counts(rows[name], before))
        for name, before in reference.features.items()
        if name != model.TIME
    }


def _counts(values: pd.Series, before: FeatureReference) -> np.ndarray:
    present = values.dropna()
    if before.edges is None:
        return present.astype(str).value_counts().reindex(list(before.values or ()), fill_value=0).to_numpy()
    bins = np.searchsorted(before.edges, present.to_numpy(np.float32), side="left")
    return np.bincount(bins, minlength=len(before.counts))


def table(steps: dict[str, Step], params: Params) -> Table:
    found = Table(box=None, padding=(0, 2, 0, 0))
    for index, head in enumerate(HEADS):
        found.add_column(head, justify="right" if index else "left")
    for name, step in steps.items():
        found.add_row(*row(name, step, params))
    return found


HEADS = (
    "",
    "frozen\nsince 1993",
    "of that\nat release",
    "bias",
    "decay",
    "trained\nagain",
    "decay",
    "largest PSI\nof a feature",
    "features\nabove 0.1",
)


def row(name: str, step: Step, params: Params) -> tuple[str, ...]:
    """Return the table cells of a delivery."""
    unit, whole, again = params.task.unit_of_loss, step.frozen.whole, step.renewed.whole.loss.value
    (output, bias), *_ = whole.biases.items()
    farthest = max(step.drift, key=lambda feature: step.drift[feature])
    return (
        name,
        with_unit(whole.loss.value, unit),
        f"{whole.loss.value / (whole.loss.at_release or 1):.0%}",
        f"{bias.value / whole.sizes[output]:+.1%}",
        "ALARM" if step.frozen.alarm else "quiet",
        with_unit(again, unit),
        "ALARM" if step.renewed.alarm else "quiet",
        f"{step.drift[farthest]:.2f} {farthest}",
        f"{sum(psi > SOME for psi in step.drift.values())} of {len(step.drift)}",
    )


def trials(steps: dict[str, Step], params: Params) -> float:
    """Return the share of trials with a false alarm.

    In each trial, delivery and release are drawn from the same sales.
    """
    random, alarms = np.random.default_rng(params.evaluate.seed), 0
    for step in steps.values():
        for _ in range(TRIALS):
            then, now = (
                step.scored.iloc[random.integers(0, len(step.scored), size)].reset_index(drop=True)
                for size in DRAWN.values()
            )
            release = Release(
                champion="drawn",
                loss=params.task.loss,
                value=float(then[LOSS].mean()),
                holdout=Holdout(rows=len(then), first=None, last=None),
            )
            alarms += judge("drawn", now, then, release, params).alarm
    return alarms / (TRIALS * len(steps))


def requirements(steps: dict[str, Step], false_alarms: float) -> dict[str, bool]:
    alarms = [name for name, step in steps.items() if step.frozen.alarm]
    late = [name for name in steps if name >= ALARM_BY]
    psis = [psi for step in steps.values() for psi in step.drift.values()]
    drifted = sum(psi > SOME for psi in psis)
    return {
        f"the model frozen in 1993 raises the decay alarm by {ALARM_BY} and in every later delivery "
        f"(first in {alarms[0] if alarms else 'none'}, {len(alarms)} of {len(steps)})": set(late) <= set(alarms),
        f"little drift: at most {MOST_DRIFTED:.0%} of the PSIs of features and deliveries are above {SOME} "
        f"({drifted} of {len(psis)}, {drifted / len(psis):.1%})": drifted <= MOST_DRIFTED * len(psis),
        f"at most {MOST_FALSE:.0%} of {TRIALS * len(steps)} trials without decay raise an alarm "
        f"({false_alarms:.1%})": false_alarms <= MOST_FALSE,
    }


def draw(steps: dict[str, Step], params: Params) -> bytes:
    """Plot the errors of both models with their intervals, and below them the PSI of every feature."""
    style = {"svg.hashsalt": "slipway", "svg.fonttype": "none", "font.family": "sans-serif", "text.parse_math": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        places = np.arange(len(steps))
        _errors(above, steps, params, places)
        for feature in next(iter(steps.values())).drift:
            psis = [step.drift[feature] for step in steps.values()]
            below.plot(places, psis, color=QUIET, linewidth=1)
            if max(psis) > SOME:
                below.annotate(
                    feature, (int(np.argmax(psis)), max(psis)), (6, -2), textcoords="offset points", color=INK
                )
        below.axhline(SOME, color=FROZEN, linewidth=1, linestyle=":")
        below.text(0, SOME, " some drift", color=FROZEN, va="bottom", fontsize=9)
        below.set_ylim(0, max(0.3, 1.1 * max(max(step.drift.values()) for step in steps.values())))
        below.set_title("drift of the inputs: PSI of each feature", loc="left", color=INK, fontsize=10)
        below.set_xticks(places, list(steps))
        for axes in (above, below):
            axes.set_facecolor("none")
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.spines["bottom"].set_color(LINE)
            axes.tick_params(colors=INK, length=0)
            axes.grid(axis="y", color=LINE, linewidth=0.6)
        file = BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _errors(axes: Axes, steps: dict[str, Step], params: Params, places: np.ndarray) -> None:
    for name, color, aside, which in (
        ("frozen since 1993", FROZEN, -0.06, [step.frozen for step in steps.values()]),
        ("trained again with each delivery", RENEWED, 0.06, [step.renewed for step in steps.values()]),
    ):
        at = places + aside
        losses = [each.whole.loss for each in which]
        values = [loss.value for loss in losses]
        ends = np.array([loss.interval or (np.nan, np.nan) for loss in losses])
        axes.plot(at, values, color=color, linewidth=2, label=name)
        axes.vlines(at, ends[:, 0], ends[:, 1], color=color, linewidth=1, alpha=0.7)
        for place, each, value in zip(at, which, values, strict=True):
            axes.plot(place, value, "o", color=color, markersize=8 if each.alarm else 4)
    at_release = next(iter(steps.values())).frozen.whole.loss.at_release
    axes.axhline(at_release, color=INK, linewidth=1, linestyle=":", label="at the release in 1993")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value, params.task.unit_of_loss)))
    axes.set_title(
        f"decay: {params.task.loss.replace('_', ' ')}, a large dot is an alarm", loc="left", color=INK, fontsize=10
    )
    axes.legend(loc="lower right", frameon=False, labelcolor=INK)


if __name__ == "__main__":
    exit_with(main)
