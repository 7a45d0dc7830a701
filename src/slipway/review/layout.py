"""Lay out a report as a document of plain blocks. The modules `markdown` and `page` render the document."""

from dataclasses import dataclass
from itertools import zip_longest

from slipway.artifacts import FeatureScore, SliceVerdict
from slipway.pipeline.number_text import number, with_unit
from slipway.pipeline.suspicion import shares
from slipway.review.report import ACCEPTED, Changes, FieldChange, PipelineResult, ReplayTruth, Report, SlowestRequest
from slipway.review.text_charts import interval_chart, loss_chart, tenths

EDGE_SLICES = 4
"""Number of worst slices and number of best slices to show. All other slices are shown in a folded table."""
MAX_RULES = 8
MOST_IMPORTANT = 12
"""Number of features to show. All other features are shown in a folded table."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Table:
    """A table. If `folded` is set, the table is folded below this title. The rows in `marked` are highlighted."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: str | None = None
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Code:
    lines: tuple[str, ...]
    language: str = "text"


@dataclass(frozen=True)
class Chart:
    """A chart: its name in `svg_charts.draw_charts`, a description, and a block to show if there are no images."""

    name: str
    alt: str
    without_image: "Code | Table"


Block = Text | Table | Code | Chart


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report for people. `headline` is the verdict, and `sentence` explains it. Warnings precede the sections."""

    headline: str
    sentence: str
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()


def lay_out(report: Report) -> Document:
    """Return the document that shows a report."""
    if report.result is None:
        stage, reason = (report.stopped.stage, report.stopped.reason) if report.stopped else ("the pipeline", "")
        headline, sentence = "NO VERDICT", f"{stage} stopped: {reason}"
        sections: tuple[Section, ...] = ()
    else:
        verdict = report.result.verdict
        headline, sentence = verdict.verdict.upper(), verdict.reason
        sections = (
            _comparison(report.result),
            *_clients(report.result),
            *_replay(report.result),
            *_charts(report.result),
            *_slices(report.result),
            *_features(report.result),
        )
    return Document(
        headline=headline,
        sentence=sentence,
        warnings=_warnings(report),
        sections=(*sections, _what_changed(report), _provenance(report)),
    )


def printable(text: str) -> str:
    """Return `text` as one line. Remove invisible characters, and characters that change the text direction."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def _warnings(report: Report) -> tuple[str, ...]:
    warnings = []
    if report.override:
        by, at = report.override.by, f"{report.override.at:%Y-%m-%d %H:%M} UTC"
        warnings.append(f"{by} added the label ship-anyway to this commit at {at}; a held model may be merged.")
    elif report.lands:
        warnings.append(
            "The model is held, but the data of this delivery can be merged (ingest.when_held: land). The champion "
            "then stays, and nothing is released. The next model is trained on these rows, too."
        )
    elif report.champion_stays:
        warnings.append(
            "This change touches nothing that the pipeline reads, so the model of main is held, too. The change can be "
            "merged, and no model is released."
        )
    if report.result:
        warnings += _result_warnings(report.result)
    if report.changes.rules:
        shown = ", ".join(report.changes.rules[:MAX_RULES]) + (", …" if len(report.changes.rules) > MAX_RULES else "")
        warnings.append(f"This change also changes the rules that judge it: {shown}.")
    if report.revision.lock == "not as committed":
        warnings.append(
            "The pipeline writes another dvc.lock than the one in this change, perhaps because dvc.lock is not "
            "committed or another processor wrote it. The release commits the dvc.lock that the pipeline writes."
        )
    return tuple(warnings)


def _result_warnings(result: PipelineResult) -> list[str]:
    verdict = result.verdict
    shown = [sign.reason for sign in verdict.suspicions if sign.reason not in verdict.reason]
    warnings = [f"Too good to be true: {reason}." for reason in shown]
    if broken := [each.field for each in _breaking(result)]:
        fields = ", ".join(dict.fromkeys(broken[:MAX_RULES])) + (", …" if len(broken) > MAX_RULES else "")
        warnings.append(f"The challenger refuses requests that the champion accepts, because of {fields}.")
    return warnings


def _comparison(result: PipelineResult) -> Section:
    rows = []
    for row in result.metrics:
        difference = "" if row.champion is None else _signed(row.challenger - row.champion)
        interval = f"{_signed(row.interval[0])} to {_signed(row.interval[1])}" if row.interval else ""
        values = ("" if value is None else number(value) for value in (row.champion, row.challenger))
        rows.append((row.metric.replace("_", " "), *values, difference, interval, number(row.baseline)))
    heads = ("", "champion", "challenger", "difference", f"{_confidence(result)} interval", "naive baseline")
    blocks: list[Block] = [Table(heads, tuple(rows))]
    if note := result.evaluation.positive_note:
        blocks.append(Text(note))
    if result.verdict.floors:
        blocks.append(_floors(result))
    if decay := result.verdict.decay:
        loss = result.verdict.loss.replace("_", " ")
        before, now = (with_unit(each, result.unit) for each in (decay.at_release, decay.now))
        change = f" ({decay.now / decay.at_release - 1:+.1%})" if decay.at_release else ""
        day = f" of the {result.row_noun} to {decay.released_on.last}" if decay.released_on.last else ""
        blocks.append(
            Text(
                f"The champion's {loss} was {before} when it was released, on the holdout{day}; on this one it is "
                f"{now}{change}."
            )
        )
    if churn := result.evaluation.churn:
        classes = result.evaluation.challenger.metrics.get("error_rate") is not None
        moved = f"{churn.moved:.1%} {'are another class' if classes else 'move by more than 5%'}"
        blocks.append(Text(f"The challenger's predictions differ by {churn.mean_difference:.1%} on average; {moved}."))
    return Section("Champion and challenger, on the same rows", tuple(blocks))


def _floors(result: PipelineResult) -> Table:
    floors = result.verdict.floors
    rows = tuple(
        (floor.metric.replace("_", " "), floor.bound, number(floor.value), "holds" if floor.held else "BROKEN")
        for floor in floors
    )
    broken = frozenset(index for index, floor in enumerate(floors) if not floor.held)
    return Table(("floor", "bound", "challenger", ""), rows, marked=broken)


def _confidence(result: PipelineResult) -> str:
    comparison = result.verdict.comparison
    return f"{comparison.confidence * 100:.4g}%" if comparison else ""


def _charts(result: PipelineResult) -> tuple[Section, ...]:
    loss = result.verdict.loss.replace("_", " ")
    charts: list[Block] = []
    if result.verdict.comparison:
        alt = f"By how much the {loss} falls against the {result.verdict.reference}'s, overall and in each slice"
        charts.append(Chart("interval", alt, Code(interval_chart(result))))
    if result.periods:
        alt = f"{loss.capitalize()} of both models over the time of the holdout"
        charts.append(Chart("loss", alt, Code(loss_chart(result), "mermaid")))
    if result.points:
        if result.is_regression:
            charts.append(Chart("predictions", "Predictions of both models against the truth", _predictions(result)))
        else:
            charts.append(Chart("predictions", "Share of correct predictions, by certainty", _certainties(result)))
    return (Section("Charts", tuple(charts)),) if charts else ()


def _predictions(result: PipelineResult) -> Table:
    rows = tuple(tuple("" if value is None else number(value) for value in row) for row in tenths(result))
    return Table(("truth, mean of a tenth of the rows", "champion", "challenger"), rows)


def _certainties(result: PipelineResult) -> Table:
    """Return a table with a row for each tenth of the holdout rows. Each model has its own tenths."""
    known = [
        sorted((certainty, point.actual) for point in result.points if (certainty := getattr(point, name)) is not None)
        for name in ("champion", "challenger")
    ]
    pairs = zip_longest(*known)
    rows = tuple(tuple(text for pair in row for text in (map(number, pair) if pair else ("", ""))) for row in pairs)
    return Table(("champion's certainty", "correct", "challenger's certainty", "correct"), rows)


def _slices(result: PipelineResult) -> tuple[Section, ...]:
    parts = result.verdict.slices
    if not parts:
        return ()
    heads = ("slice", result.row_noun, "champion's loss", "change", "interval", "")
    rows = [_slice_row(part) for part in parts]
    judged = [index for index, part in enumerate(parts) if part.judged]
    worse = sum(part.regressed for part in parts)
    shown = sorted({*range(worse), *judged[:EDGE_SLICES], *judged[-EDGE_SLICES:]})
    others = [index for index in range(len(parts)) if index not in shown]
    blocks = [Table(heads, tuple(rows[index] for index in shown), marked=frozenset(range(worse)))]
    if others:
        blocks.append(Table(heads, tuple(rows[index] for index in others), folded=f"The other {len(others)} slices"))
    summary = f"{worse} of {len(judged)} slices regress" if worse else f"None of {len(judged)} slices regresses"
    text = Text(f"{summary}; slices with too few rows, days or groups are shown but not judged.")
    return (Section("Slices, the worst first", (text, *blocks)),)


def _slice_row(part: SliceVerdict) -> tuple[str, ...]:
    ends = part.comparison.interval
    share = f" ({0.0 - part.relative:+.1%})"
    return (
        f"{part.column}: {part.value}",
        f"{part.comparison.rows:,}",
        number(part.reference_loss),
        f"{_signed(0.0 - part.comparison.difference)}{share}",
        f"{_signed(0.0 - ends[1])} to {_signed(0.0 - ends[0])}" if ends else "",
        "REGRESSES" if part.regressed else "" if part.judged else "too few",
    )


def _features(result: PipelineResult) -> tuple[Section, ...]:
    features = result.evaluation.features
    if not features:
        return ()
    share = shares({each.name: each.challenger for each in features})
    suspected = {sign.feature for sign in result.verdict.suspicions}
    marked = frozenset(index for index, each in enumerate(features) if each.name in suspected)
    heads: tuple[str, ...] = ("feature", "champion", "challenger", "share", "alone")
    rows = [(each.name, *_importance(each, share[each.name])) for each in features]
    if any(each.missing_before or each.missing_now for each in features):
        heads = (*heads, "missing before", f"missing in {result.evaluation.newest_delivery}")
        rows = [(*row, *_missing(each)) for row, each in zip(rows, features, strict=True)]
    loss = result.verdict.loss.replace("_", " ")
    alt = f"By how much the {loss} of both models rises if a feature is shuffled"
    text = (
        "The share is the feature's part of the challenger's total importance. The next column shows which part of the "
        "naive baseline's loss a small tree removes if it reads only this feature, or only the length of a text, the "
        "norm of a vector or the brightness of an image. It is negative if the tree is worse than the baseline."
    )
    chart = Chart("importance", alt, Table(heads, tuple(rows[:MOST_IMPORTANT]), marked=marked))
    others = rows[MOST_IMPORTANT:]
    hidden = frozenset(index - MOST_IMPORTANT for index in marked if index >= MOST_IMPORTANT)
    rest = [Table(heads, tuple(others), f"The other {len(others)} features", hidden)] if others else []
    return (Section("Importance of features", (Text(text), chart, *rest)),)


def _importance(each: FeatureScore, share: float) -> tuple[str, ...]:
    if each.challenger is None or each.alone is None:
        return ("" if each.champion is None else number(each.champion), "", "", "")
    champion = "" if each.champion is None else number(each.champion)
    return (champion, number(each.challenger), f"{share:.1%}", f"{each.alone:.1%}")


def _missing(each: FeatureScore) -> tuple[str, ...]:
    return tuple("" if part is None else f"{part:.1%}" for part in (each.missing_before, each.missing_now))


def _clients(result: PipelineResult) -> tuple[Section, ...]:
    clients = result.clients
    if clients is None:
        return ()
    rows = tuple((each.field, each.change, each.old_requests) for each in clients.fields)
    breaking = _breaking(result)
    marked = frozenset(index for index, each in enumerate(clients.fields) if each in breaking)
    accepted = clients.records - clients.refused
    text = f"The challenger accepts {accepted:,} of the {clients.records:,} records in the champion's golden.json"
    because = f": {clients.reason.removesuffix('.')}" if clients.reason else ""
    table = Table(("field", "now", "old requests"), rows, marked=marked)
    return (Section("Changes for clients", (table, Text(f"{text}{because}."))),)


def _replay(result: PipelineResult) -> tuple[Section, ...]:
    found = result.replay
    if found is None:
        return ()
    title = "Replay of logged requests"
    if found.unavailable:
        return (Section(title, (Text(f"The log was not replayed, because {found.unavailable.removesuffix('.')}."),)),)
    classes = result.evaluation.challenger.metrics.get("error_rate") is not None
    median, high, largest = (with_unit(each, "" if classes else result.unit) for each in found.changes)
    what = "probability changes" if classes else "answer changes"
    moved = f"{found.moved:.1%} {'get another class' if classes else 'get another answer'}"
    blocks: list[Block] = [
        Text(
            f"The challenger answered {found.requests:,} requests that production received from {found.first} to "
            f"{found.last}: {moved}, and {found.refused:,} are refused. The {what} by {median} in the median, by "
            f"{high} at the 95th percentile, and by {largest} at most. {_slowest(found.slowest)}"
            f"{_replay_truth(result, found.truth)}"
        )
    ]
    if found.feedback == "possible":
        blocks.append(
            Text(
                "Answers can influence the truth (replay.feedback: possible). The truths of these requests depend on "
                "the model that answered them, so they cannot show which model is better."
            )
        )
    elif found.truth and not found.truth.unavailable:
        blocks.append(
            Text(
                "This assumes that answers do not influence the truth (replay.feedback: none). It does not affect the "
                "verdict."
            )
        )
    if found.slices:
        rows = tuple(
            (f"{part.column}: {part.value}", f"{part.requests:,}", f"{part.moved:.1%}") for part in found.slices
        )
        blocks.append(Table(("slice", "requests", "moved"), rows, folded="Slices with the most moved answers"))
    return (Section(title, tuple(blocks)),)


def _slowest(found: SlowestRequest | None) -> str:
    if found is None:
        return ""
    records = f"{found.records:,} records" if found.records > 1 else "1 record"
    return (
        f"The slowest request, with {records}, took production {number(found.seconds * 1_000)} ms "
        f"({found.at:%Y-%m-%d %H:%M:%S} UTC). "
    )


def _replay_truth(result: PipelineResult, found: ReplayTruth | None) -> str:
    """Return sentences on the losses of champion and challenger on requests whose truth is known."""
    if found is None:
        return "The truth of these requests is not known."
    if found.unavailable:
        return f"The truth of {found.requests:,} requests is known, but not compared, because {found.unavailable}."
    loss = result.verdict.loss.replace("_", " ")
    champion, challenger = (with_unit(each, result.unit) for each in (found.champion, found.challenger))
    trained = f", without {found.trained_on:,} for rows that a model was trained on" if found.trained_on else ""
    return (
        f"The truth of {found.requests:,} of them is known{trained}. On these, the {loss} is {champion} for the "
        f"champion and {challenger} for the challenger: {_closer(found)}."
    )


def _closer(found: ReplayTruth) -> str:
    if found.interval is None:
        return "too few days or groups to say which one is closer"
    low, high = found.interval
    interval = f"{found.confidence * 100:g}% interval of the difference {_signed(low)} to {_signed(high)}"
    if low <= 0 <= high:
        return f"neither is shown to be closer ({interval})"
    return f"the {'challenger' if low > 0 else 'champion'} is closer ({interval})"


def _breaking(result: PipelineResult) -> list[FieldChange]:
    return [each for each in result.clients.fields if each.old_requests != ACCEPTED] if result.clients else []


def _what_changed(report: Report) -> Section:
    blocks = [*_data(report.changes), *_code(report.changes)]
    if not blocks:
        blocks.append(Text("No data, parameter or code that the pipeline reads."))
    return Section("What changed", (*blocks, *(_cost(report.result) if report.result else ())))


def _data(changes: Changes) -> list[Block]:
    blocks: list[Block] = []
    if changes.deliveries is None:
        blocks.append(
            Text(
                "data/ has changed, but the files before or after the change are not in the DVC remote; push them with "
                "`dvc push --all-commits data.dvc`."
            )
        )
    elif changes.deliveries:
        delivered = [
            (
                each.name,
                each.change,
                f"+{each.added:,} / -{each.removed:,}",
                "" if each.quarantined is None else f"{each.quarantined:,}",
                "; ".join([*(f"{count:,}: {reason}" for reason, count in each.reasons.items()), *each.notes]),
            )
            for each in changes.deliveries
        ]
        blocks.append(Table(("delivery", "", "rows", "quarantined", "notes"), tuple(delivered)))
    if changes.drift:
        drifted = [
            (each.column, f"{each.psi:.3f}", _size(each.psi), f"{each.missing_before:.1%}", f"{each.missing_now:.1%}")
            for each in changes.drift
        ]
        heads = ("drift of the new rows", "PSI", "", "missing before", "missing now")
        folded = f"Drift of {len(drifted)} columns; the largest PSI is {changes.drift[0].psi:.2f}"
        blocks.append(Table(heads, tuple(drifted), folded))
    alarm = {True: "has decayed", False: "has not decayed"}
    blocks += [Text(f"The champion {alarm[each.alarm]} on {each.delivery}: {each.reason}.") for each in changes.decay]
    return blocks


def _size(psi: float) -> str:
    return "large" if psi > 0.25 else "some" if psi > 0.1 else "little"


def _code(changes: Changes) -> list[Block]:
    blocks: list[Block] = []
    if changes.parameters:
        rows = tuple((each.key, each.old or "not set", each.new or "not set") for each in changes.parameters)
        blocks.append(Table(("parameter", "before", "now"), rows))
    if changes.files:
        files = tuple((each.path, _count("+", each.added), _count("-", each.removed)) for each in changes.files)
        blocks.append(Table(("code that the pipeline runs", "", ""), files))
    return blocks


def _count(sign: str, lines: int | None) -> str:
    return "binary" if lines is None else f"{sign}{lines:,}"


def _cost(result: PipelineResult) -> tuple[Block, ...]:
    evaluation, latency = result.evaluation, result.latency
    sizes = [
        f"{each.bytes / 1e6:.2f} MB" if each and each.bytes else ""
        for each in (evaluation.champion, evaluation.challenger)
    ]
    times = [f"{value:.0f} µs" if value is not None else "" for value in (latency.champion, latency.challenger)]
    return (Table(("cost", "champion", "challenger"), (("bundle", *sizes), ("one row, one thread", *times))),)


def _provenance(report: Report) -> Section:
    revision = report.revision
    facts = [("judged commit", revision.commit), ("last commit of the change", revision.head), ("base", revision.base)]
    if revision.data:
        facts.append(("data", revision.data))
    if report.result:
        verdict = report.result.verdict
        facts += [("challenger", verdict.challenger_bundle), ("champion", verdict.champion_bundle or "none")]
    facts.append(("dvc.lock", revision.lock))
    return Section("Provenance, and how to reproduce it", (Table(("", ""), tuple(facts)), _commands(report)))


def _commands(report: Report) -> Code:
    fetch = f"git fetch origin pull/{report.pull_request}/merge && " if report.pull_request else ""
    lines = (
        f"{fetch}git checkout {report.revision.commit}",
        "make setup",
        ". .venv/bin/activate",
        "slipway reproduce",
        "slipway verdict",
        "make report",
    )
    return Code(lines, "sh")


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"
