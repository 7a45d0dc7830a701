"""Describe the live performance of bundles in tables for the terminal and in sentences."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from slipway.monitoring.join_log import Live, Skew
from slipway.monitoring.live_performance import LivePart
from slipway.pipeline.number_text import number


def live_tables(live: Live) -> Iterator[Table]:
    """Yield a table of live performance for each bundle, and a table with the share of known truths by age."""
    for each in live.bundles:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column(f"bundle {each.bundle[:12]}")
        for head in ("rows", "truth known", "loss", "interval", ""):
            table.add_column(head, justify="right")
        for section in ((each.whole,), each.days, each.slices):
            for part in section:
                table.add_row(*map(escape, _cells(part)))
            table.add_section()
        yield table
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("days after the request", "rows of this age", "truth known"):
        table.add_column(head, justify="right")
    for point in live.maturity:
        table.add_row(str(point.days), f"{point.rows:,}", f"{point.share:.1%}")
    yield table


def _cells(part: LivePart) -> tuple[str, ...]:
    name = part.value if part.column in (None, "day") else f"{part.column} {part.value}"
    share = f"{part.known / part.rows:.1%}" if part.rows else "-"
    loss = "-" if part.loss is None else number(part.loss)
    interval = " to ".join(map(number, part.interval)) if part.interval else "-"
    return name, f"{part.rows:,}", share, loss, interval, "young" if part.young else ""


def sentences(live: Live) -> Iterator[str]:
    """Yield sentences about the rows, the labels, the skew of each bundle, and the decay of the champion."""
    rows, labels = live.counts, live.counts.labels
    yield (
        f"{rows.joined:,} of {rows.rows:,} rows have a truth; {rows.missing:,} have no label, "
        f"{rows.contradictory:,} have contradictory labels, {rows.known_before:,} have labels from before the request, "
        f"{rows.repeated_request:,} have a request id that the log has several times, {rows.other_class:,} have labels "
        "of another class"
    )
    yield (
        f"{labels:,} labels: {rows.labels_repeated:,} repeat another one, {rows.labels_corrected:,} of them with "
        f"another truth, {rows.labels_unknown:,} are not in the log, {rows.labels_invalid:,} are invalid"
    )
    for each in live.skew:
        yield f"{'ALARM: ' if each.different else ''}{skew_sentence(each)}"
    for delivered in live.delivered:
        yield f"{delivered} was written to the source of deliveries"
    for decay in live.decays:
        yield f"decay: {'ALARM' if decay.alarm else 'no alarm'}: {decay.reason}"


def skew_sentence(skew: Skew) -> str:
    bundle = skew.bundle[:12]
    if skew.unchecked:
        return f"rows of bundle {bundle} were not scored again, because {skew.unchecked}"
    if skew.different:
        worst = f"; the worst slice is {skew.worst}" if skew.worst else ""
        return (
            f"{skew.different:,} of {skew.rows:,} answers of bundle {bundle} differ from those of the pipeline by up "
            f"to {skew.largest:.2g}, for the first time on {skew.since}, in the answer to request {skew.example}{worst}"
        )
    return f"all {skew.rows:,} answers of bundle {bundle} are those of the pipeline"
