"""What a reviewer reads, in order, as plain blocks. `markdown` and `page` say how they look."""

from dataclasses import dataclass

from slipway.artifacts import SliceVerdict
from slipway.pipeline.verdict_text import number
from slipway.review.report import Changes, Judged, Lineage, Report
from slipway.review.text_charts import error_over_time, interval_line, tenths

EDGE_SLICES = 4
"""How many of the worst slices, and of the best, are shown before one unfolds the rest."""
FIRST_ROWS = 8


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Table:
    """`folded` is the title under which it unfolds, where it is not shown at once. Rows in `marked` stand out."""

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
    """A picture (`charts.draw` names its files), what it shows in words, and a form that needs no picture."""

    name: str
    alt: str
    sketch: "Code | Table"


Block = Text | Table | Code | Chart


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """`headline` is the verdict in a word, `sentence` says why; `warnings` are what must not be overlooked."""

    headline: str
    sentence: str
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()


def compose(report: Report) -> Document:
    """The report, in the words and the order in which a reviewer decides."""
    if report.judged is None:
        stage, words = (report.stopped.stage, report.stopped.words) if report.stopped else ("the pipeline", "")
        headline, sentence = "NO VERDICT", f"{stage} stopped: {words}"
        sections: tuple[Section, ...] = ()
    else:
        verdict = report.judged.verdict
        headline, sentence = verdict.verdict.upper(), verdict.reason
        sections = (_comparison(report.judged), *_charts(report.judged), *_slices(report.judged))
    return Document(
        headline=headline,
        sentence=sentence,
        warnings=_warnings(report),
        sections=(*sections, _what_changed(report), _lineage(report)),
    )


def printable(text: str) -> str:
    """A text on one line, without what cannot be seen or turns what can."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def _warnings(report: Report) -> tuple[str, ...]:
    warnings = []
    if report.override:
        by, at = report.override.by, f"{report.override.at:%Y-%m-%d %H:%M} UTC"
        warnings.append(f"{by} has put the label ship-anyway on this commit at {at}; held or not, it may be merged.")
    if report.changes.rules:
        shown = ", ".join(report.changes.rules[:FIRST_ROWS]) + (", …" if len(report.changes.rules) > FIRST_ROWS else "")
        warnings.append(f"This change is judged by rules that it changes itself: {shown}.")
    if report.lineage.lock == "not as committed":
        warnings.append(
            "The dvc.lock of this change is not what the pipeline gives here, perhaps because another processor wrote "
            "it; the release brings the one that the pipeline gives."
        )
    return tuple(warnings)


def _comparison(judged: Judged) -> Section:
    unit = judged.unit
    rows = []
    for row in judged.metrics:
        difference = "" if row.champion is None else _signed(row.challenger - row.champion)
        interval = f"{_signed(row.interval[0])} to {_signed(row.interval[1])}" if row.interval else ""
        values = ("" if value is None else number(value) for value in (row.champion, row.challenger))
        rows.append((row.metric.replace("_", " "), *values, difference, interval, number(row.baseline)))
    blocks: list[Block] = [
        Table(
            ("", "champion", "challenger", "difference", f"{_confidence(judged)} interval", "naive baseline"),
            tuple(rows),
        )
    ]
    if judged.verdict.floors:
        held = ("holds" if floor.held else "BROKEN" for floor in judged.verdict.floors)
        floors = tuple(
            (floor.metric.replace("_", " "), floor.bound, number(floor.value), word)
            for floor, word in zip(judged.verdict.floors, held, strict=True)
        )
        broken = frozenset(index for index, floor in enumerate(judged.verdict.floors) if not floor.held)
        blocks.append(Table(("floor", "asks for", "challenger", ""), floors, marked=broken))
    if decay := judged.verdict.decay:
        change = f" ({decay.now / decay.at_release - 1:+.1%})" if decay.at_release else ""
        day = f" of the {judged.row_noun} to {decay.released_on.last}" if decay.released_on.last else ""
        blocks.append(
            Text(
                f"The champion's {judged.verdict.loss.replace('_', ' ')} was {unit}{number(decay.at_release)} when it "
                f"was released, on the holdout{day}; on this one it is {unit}{number(decay.now)}{change}."
            )
        )
    if churn := judged.evaluation.churn:
        classes = judged.evaluation.challenger.metrics.get("error_rate") is not None
        moved = f"{churn.moved:.1%} {'are another class' if classes else 'move by more than 5%'}"
        blocks.append(Text(f"The challenger's answers differ by {churn.mean_difference:.1%} on average; {moved}."))
    return Section("Champion and challenger, on the same rows", tuple(blocks))


def _confidence(judged: Judged) -> str:
    comparison = judged.verdict.comparison
    return f"{comparison.confidence * 100:.4g}%" if comparison else ""


def _charts(judged: Judged) -> tuple[Section, ...]:
    loss = judged.verdict.loss.replace("_", " ")
    charts: list[Block] = []
    if judged.verdict.comparison:
        charts.append(
            Chart(
                "interval",
                f"By how much the {loss} falls against the {judged.verdict.reference}'s, overall and in each slice",
                Code(interval_line(judged)),
            )
        )
    if judged.periods:
        charts.append(
            Chart(
                "error",
                f"{loss.capitalize()} of both models over the time of the holdout",
                Code(error_over_time(judged), "mermaid"),
            )
        )
    if judged.points:
        alt = (
            "What both models answer against what is true"
            if judged.evaluation.challenger.metrics.get("r_squared") is not None
            else "How often answers of some certainty are right"
        )
        charts.append(Chart("answers", alt, _answers(judged)))
    return (Section("At a glance", tuple(charts)),) if charts else ()


def _answers(judged: Judged) -> Table:
    rows = tuple(tuple("" if value is None else number(value) for value in row) for row in tenths(judged))
    return Table(("true, on average in a tenth of the rows", "champion", "challenger"), rows)


def _slices(judged: Judged) -> tuple[Section, ...]:
    parts = judged.verdict.slices
    if not parts:
        return ()
    heads = ("slice", judged.row_noun, "champion's loss", "change", "interval", "")
    rows = [_slice_row(part) for part in parts]
    counted = [index for index, part in enumerate(parts) if part.judged]
    worse = sum(part.regressed for part in parts)
    shown = sorted({*range(worse), *counted[:EDGE_SLICES], *counted[-EDGE_SLICES:]})
    others = [index for index in range(len(parts)) if index not in shown]
    blocks = [Table(heads, tuple(rows[index] for index in shown), marked=frozenset(range(worse)))]
    if others:
        blocks.append(Table(heads, tuple(rows[index] for index in others), folded=f"The other {len(others)} slices"))
    said = f"{worse} of {len(counted)} slices regress" if worse else f"None of {len(counted)} slices regresses"
    return (Section("Slices, the worst first", (Text(f"{said}; smaller ones are shown and not judged."), *blocks)),)


def _slice_row(part: SliceVerdict) -> tuple[str, ...]:
    low, high = part.comparison.interval
    share = f" ({0.0 - part.relative:+.1%})"
    return (
        f"{part.column}: {part.value}",
        f"{part.comparison.rows:,}",
        number(part.reference_loss),
        f"{_signed(0.0 - part.comparison.difference)}{share}",
        f"{_signed(0.0 - high)} to {_signed(0.0 - low)}",
        "REGRESSES" if part.regressed else "" if part.judged else "too few",
    )


def _what_changed(report: Report) -> Section:
    changes = report.changes
    blocks = [*_data(changes), *_settings(changes)]
    if not blocks:
        blocks.append(Text("Nothing that the pipeline reads."))
    return Section("What changed", (*blocks, *(_cost(report.judged) if report.judged else ())))


def _data(changes: Changes) -> list[Block]:
    blocks: list[Block] = []
    if changes.deliveries is None:
        blocks.append(
            Text("data/ has changed, and how cannot be told: the data of the base is not in the DVC remote; push it.")
        )
    elif changes.deliveries:
        delivered = [
            (
                each.name,
                each.change,
                f"+{each.added:,} / -{each.removed:,}",
                f"{each.quarantined:,}",
                _why(each.reasons),
            )
            for each in changes.deliveries
        ]
        blocks.append(Table(("delivery", "", "rows", "quarantined", "why"), tuple(delivered)))
    if changes.drift:
        drifted = [
            (each.column, f"{each.psi:.3f}", _size(each.psi), f"{each.missing_before:.1%}", f"{each.missing_now:.1%}")
            for each in changes.drift
        ]
        heads = ("drift of the new rows", "PSI", "", "missing before", "missing now")
        folded = f"Drift of {len(drifted)} columns; the largest PSI is {changes.drift[0].psi:.2f}"
        blocks.append(Table(heads, tuple(drifted), folded))
    words = {True: "has decayed", False: "has not decayed"}
    blocks += [Text(f"The live model {words[each.alarm]} on {each.delivery}: {each.reason}.") for each in changes.decay]
    return blocks


def _why(reasons: dict[str, int]) -> str:
    return "; ".join(f"{count:,}: {reason}" for reason, count in reasons.items())


def _size(psi: float) -> str:
    return "large" if psi > 0.25 else "some" if psi > 0.1 else "little"


def _settings(changes: Changes) -> list[Block]:
    blocks: list[Block] = []
    if changes.parameters:
        rows = tuple((each.key, each.old or "not there", each.new or "not there") for each in changes.parameters)
        blocks.append(Table(("parameter", "before", "now"), rows))
    if changes.files:
        files = tuple((each.path, _count("+", each.added), _count("-", each.removed)) for each in changes.files)
        blocks.append(Table(("code that the pipeline runs", "", ""), files))
    return blocks


def _count(sign: str, lines: int | None) -> str:
    return "binary" if lines is None else f"{sign}{lines:,}"


def _cost(judged: Judged) -> tuple[Block, ...]:
    evaluation, latency = judged.evaluation, judged.latency
    sizes = [
        f"{each.bytes / 1e6:.2f} MB" if each and each.bytes else ""
        for each in (evaluation.champion, evaluation.challenger)
    ]
    times = [f"{value:.0f} µs" if value is not None else "" for value in (latency.champion, latency.challenger)]
    return (Table(("cost", "champion", "challenger"), (("bundle", *sizes), ("one row, one thread", *times))),)


def _lineage(report: Report) -> Section:
    lineage = report.lineage
    facts = [("commit that was judged", lineage.commit), ("head of the change", lineage.head), ("base", lineage.base)]
    if lineage.data:
        facts.append(("data", lineage.data))
    if report.judged:
        verdict = report.judged.verdict
        facts += [("challenger", verdict.challenger_bundle), ("champion", verdict.champion_bundle or "none")]
    facts.append(("dvc.lock", lineage.lock))
    return Section(
        "Lineage, and how to reproduce it", (Table(("", ""), tuple(facts)), Code(_commands(report, lineage), "sh"))
    )


def _commands(report: Report, lineage: Lineage) -> tuple[str, ...]:
    fetch = f"git fetch origin pull/{report.pull_request}/merge && " if report.pull_request else ""
    return (
        f"{fetch}git checkout {lineage.commit}",
        "make setup",
        ". .venv/bin/activate",
        "slipway reproduce",
        "slipway verdict",
        "make report",
    )


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"
