"""Write the model card of a bundle: Markdown with front matter for Hugging Face.

The card depends only on the bundle, the metrics in git and the scores in build/, so the same files give the same bytes.
If the scores of the evaluation are in build/, the metrics have confidence intervals. The card is not part of the
bundle, because a change of the card must not change the hash of the bundle. The card contains no data rows, only names,
ranges, numbers of rows, and metrics. https://huggingface.co/docs/hub/model-cards
"""

import json
import math
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

from slipway import artifacts
from slipway.artifacts import Contender, Evaluation, Release, SliceScore
from slipway.bundle import Bundle, Column, Schema, read_reference
from slipway.config import METRICS, ONE_MINUS_AUC, RECALL_AT_PRECISION, load_params
from slipway.pipeline.gate import weights_of
from slipway.pipeline.parquet import read_table
from slipway.provenance import Provenance
from slipway.review.intervals import metric_intervals
from slipway.review.markdown import escape
from slipway.statistics.blocks import average

CARD = "MODEL_CARD.md"
MAX_ROWS = 200
"""Maximum number of features in the card. The same maximum applies to the slices."""
SHARES = {*METRICS["classification"], ONE_MINUS_AUC, "r_squared"} - {"log_loss", "brier_score"}
"""Metrics that cannot be above 1. Only `bias` and `r_squared` can be below 0."""


def model_card(bundle: Bundle, provenance: Provenance) -> str:
    """Return the model card of a bundle. If the metrics in git belong to another bundle, the card has no metrics."""
    evaluation = Evaluation.read(artifacts.EVALUATION) if artifacts.EVALUATION.is_file() else None
    release = Release.read(artifacts.RELEASE) if artifacts.RELEASE.is_file() else None
    scored = _contender(evaluation, bundle.hash)
    lines = [
        *_front_matter(bundle, evaluation, scored),
        f"# Prediction of {escape(bundle.schema.target)}",
        "",
        *_data(bundle, evaluation if scored else None),
        *_metrics(evaluation, scored),
        *_slices(evaluation, scored),
        *_limits(bundle),
        *_provenance(bundle, provenance, release),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _contender(evaluation: Evaluation | None, bundle: str) -> Contender | None:
    contenders = (evaluation.challenger, evaluation.champion) if evaluation else ()
    return next((each for each in contenders if each and each.bundle == bundle), None)


def _front_matter(bundle: Bundle, evaluation: Evaluation | None, scored: Contender | None) -> Iterator[str]:
    """Yield the lines of the YAML front matter. Each value is written as JSON, which is valid YAML."""
    schema = bundle.schema
    task = task_of(schema)
    yield from ("---", "library_name: onnx", f"pipeline_tag: {task}", 'tags: ["onnx", "slipway"]')
    if evaluation and scored:
        results = {
            "task": {"type": task},
            "dataset": {"type": "holdout", "name": f"{evaluation.holdout.rows} holdout rows"},
            "metrics": [{"type": name, "value": value} for name, value in scored.metrics.items()],
        }
        yield f"metrics: {json.dumps([*scored.metrics])}"
        yield f"model-index: {json.dumps([{'name': f'{schema.target} {bundle.hash[:12]}', 'results': [results]}])}"
    yield from ("---", "")


def task_of(schema: Schema) -> str:
    """Return the task as Hugging Face names it, such as `text-classification`."""
    kinds = {column.type for column in schema.columns} if schema.classes else set()
    inputs = "image" if "image" in kinds else "text" if "text" in kinds else "tabular"
    return f"{inputs}-{schema.kind}"


def _data(bundle: Bundle, evaluation: Evaluation | None) -> Iterator[str]:
    yield from ("## Data", "")
    yield f"- Training rows: {len(bundle.training_rows()):,}"
    reference = read_reference(bundle.path)
    for column in bundle.schema.columns:
        found = reference.features.get(column.name)
        if column.type == "date" and found and found.edges:
            first, last = (_day(edge) for edge in (found.edges[0], found.edges[-1]))
            yield f"- {escape(column.name)} of most training rows: {first} to {last}"
    if evaluation:
        span = f", from {evaluation.holdout.first} to {evaluation.holdout.last}" if evaluation.holdout.first else ""
        yield f"- Holdout rows, which the model was not trained on: {evaluation.holdout.rows:,}{span}"
    yield ""


def _day(days: float) -> date:
    return date(1970, 1, 1) + timedelta(days=int(days))


def _metrics(evaluation: Evaluation | None, scored: Contender | None) -> Iterator[str]:
    yield from ("## Metrics", "")
    if not evaluation or not scored:
        yield from (f"{artifacts.EVALUATION} has no metrics of this bundle.", "")
        return
    confidence, intervals = _intervals(evaluation, scored)
    rows = [
        (name, f"{value:.6g}", f"{evaluation.baseline.metrics[name]:.6g}", *(intervals and [intervals[name]]))
        for name, value in scored.metrics.items()
    ]
    note = f" {escape(evaluation.positive_note)}" if evaluation.positive_note else ""
    yield f"Models are compared by {escape(evaluation.loss.replace('_', ' '))} on the holdout rows.{note}"
    yield ""
    heads = ("Metric", "Model", "Naive baseline")
    yield from _table((*heads, f"{confidence:.0%} interval of the model") if intervals else heads, rows)


def _intervals(evaluation: Evaluation, scored: Contender) -> tuple[float, dict[str, str]]:
    """Return the confidence level, and the interval of each metric as text, or {} if the scores are missing."""
    if not artifacts.SCORES.is_file():
        return 0.0, {}
    name = "challenger" if scored is evaluation.challenger else "champion"
    scores, params = read_table(artifacts.SCORES), load_params(artifacts.PARAMS)
    mean = average(scores[f"{name}_loss"].to_numpy(), weights_of(scores)) if f"{name}_loss" in scores else math.nan
    if len(scores) != evaluation.holdout.rows or not math.isclose(mean, scored.loss):
        return 0.0, {}  # the scores belong to another evaluation
    found = metric_intervals(scores, params, name, evaluation.positive_index)
    texts = {name: _interval(name, each) if each else "too few days or groups" for name, each in found.items()}
    return params.gate.confidence, {name: texts.get(name, "") for name in scored.metrics}


def _interval(metric: str, interval: tuple[float, float]) -> str:
    """Return an interval as text, without values that the metric cannot have, such as a recall above 1."""
    least = -math.inf if metric in ("bias", "r_squared") else 0.0
    most = 1.0 if metric in SHARES or RECALL_AT_PRECISION.fullmatch(metric) else math.inf
    return f"{max(interval[0], least):.6g} to {min(interval[1], most):.6g}"


def _slices(evaluation: Evaluation | None, scored: Contender | None) -> Iterator[str]:
    if not evaluation or not scored or not evaluation.slices:
        return
    is_challenger = scored is evaluation.challenger

    def loss(part: SliceScore) -> float:
        return part.challenger if is_challenger else part.champion or 0.0

    shown = sorted(evaluation.slices, key=lambda part: -loss(part))[:MAX_ROWS]
    yield from (
        "## Slices",
        "",
        f"The {evaluation.loss.replace('_', ' ')} on parts of the holdout, the largest first.",
        "",
    )
    yield from _table(
        ("Column", "Value", "Rows", "Loss"),
        [(part.column, part.value, f"{part.rows:,}", f"{loss(part):.6g}") for part in shown],
    )


def _limits(bundle: Bundle) -> Iterator[str]:
    yield from (
        "## Limits",
        "",
        "The model was not evaluated outside of these values, and its server refuses them.",
        "",
    )
    columns = bundle.schema.columns[:MAX_ROWS]
    yield from _table(
        ("Feature", "Type", "Values", "Required"),
        [(each.name, each.type, _values(each), "yes" if each.required else "no") for each in columns],
    )
    if len(bundle.schema.columns) > MAX_ROWS:
        yield from (f"The model reads {len(bundle.schema.columns) - MAX_ROWS:,} more features.", "")
    decision = bundle.schema.decision
    if decision is not None and bundle.schema.classes:
        yield "The class in an answer is the one with the smallest expected cost:"
        yield ""
        answers = [
            (true, *(f"{cost:g}" for cost in costs))
            for true, costs in zip(bundle.schema.classes, decision.costs, strict=True)
        ]
        yield from _table(("True class", *(f"Answer {name}" for name in bundle.schema.classes)), answers)
        if decision.threshold is not None:
            name = escape(bundle.schema.classes[1])
            yield f"So the answer is {name} if its probability is at least {decision.threshold:.6g}."
            yield ""


def _values(column: Column) -> str:
    if column.values is not None:
        return f"{len(column.values)} categories"
    low, high = (each if each is None else _bound(each) for each in (column.minimum, column.maximum))
    what = " characters" if column.type == "text" else ""
    if low and high:
        return f"{low} to {high}{what}"
    return f"at least {low}{what}" if low else f"at most {high}{what}" if high else "any"


def _bound(value: float | str) -> str:
    return f"{value:,}".removesuffix(".0") if isinstance(value, float) else f"{value}"


def _provenance(bundle: Bundle, provenance: Provenance, release: Release | None) -> Iterator[str]:
    yield from ("## Provenance", "", f"- Bundle: `{bundle.hash}`")
    if provenance.data:
        yield f"- Data (hash in `{artifacts.DATA_DVC}`): `{provenance.data}`"
    if provenance.commit:
        yield f"- Commit: `{provenance.commit}`"
    verdict, reason = provenance.verdict, provenance.reason
    if release and release.champion == bundle.hash:
        verdict, reason = release.verdict, release.reason
    if verdict:
        yield f"- Verdict of the gate: {escape(verdict)}, because {escape(reason or 'no reason is known')}"
    yield ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(map(escape, heads))} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(escape(str(cell)) for cell in row)} |"
    yield ""
