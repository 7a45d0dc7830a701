"""Join logged predictions with the true values, and measure the performance → build/joined/, build/live.json."""

import errno
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from slipway import atomic
from slipway.artifacts import Artifact
from slipway.bundle import Bundle
from slipway.config import PERIOD_DAYS, Params
from slipway.contract import Model
from slipway.errors import InputError
from slipway.integrations.compute import LOCAL, Engine, run_each
from slipway.integrations.label_source import LabelSource, fetched_labels
from slipway.integrations.log_store import DAY, LogStore
from slipway.monitoring.join_file import OUTCOMES, JoinedFile, JoinTask, Slice, join_file, labelled_requests, read_file
from slipway.monitoring.joined_rows import check_place, deliver_periods, publish
from slipway.monitoring.labels import Labels, by_request, collect, columns_of_labels, key_ids, read_labels, request_ids
from slipway.monitoring.live_decay import (
    ChampionRows,
    LiveDecay,
    Reported,
    as_date,
    earlier_periods,
    live_decay,
    newest_period,
)
from slipway.monitoring.live_performance import Collected, LivePart, LivePerformance, Maturity, maturity, performance
from slipway.monitoring.push_loss import push_loss
from slipway.pipeline.decay import AtRelease
from slipway.pipeline.number_text import number
from slipway.serving.logged_columns import secret_of_keys

LIVE = Path("build/live.json")
JOINED = Path("build/joined")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
"""Values of `errno` for a full disk. None is for errors of numpy, which have no `errno`."""


class JoinCounts(Artifact):
    """The number of logged rows for each outcome of the join, and the numbers of labels."""

    rows: int
    joined: int
    missing: int
    """Logged rows without a label."""
    contradictory: int
    """Rows whose latest labels have the same time but different truths."""
    known_before: int
    """Rows whose label was known before the day of the request, so the label belongs to an earlier event."""
    repeated_request: int
    """Rows whose request id is in the log several times, so that a label by request id can belong to another row."""
    other_class: int
    """Rows whose label is not a class of the model."""
    labels: int
    labels_invalid: int
    labels_repeated: int
    labels_corrected: int
    labels_unknown: int
    """Labels whose row is not in the log."""


class Skew(Artifact):
    """Training-serving skew: a bundle's logged predictions, compared with its new predictions for the same records.

    `different` is the number of predictions that differ, and `largest` is the largest difference.
    """

    bundle: str
    rows: int
    different: int
    largest: float
    example: str | None
    """Id of the first request in the log whose prediction differs."""
    since: date | None = None
    """The day of the request `example`."""
    worst: str | None = None
    """The slice with the largest share of differing predictions, in words."""
    unchecked: str | None = None
    """The reason why rows of this bundle cannot be scored again."""


class Live(Artifact):
    """The content of build/live.json."""

    loss: str
    confidence: float
    counts: JoinCounts
    maturity: tuple[Maturity, ...]
    bundles: tuple[LivePerformance, ...]
    skew: tuple[Skew, ...]
    period: tuple[date, date] | None
    """The newest period with only mature days."""
    decay: LiveDecay | None
    """The champion's decay in this period. None if no champion was given."""
    earlier: tuple[LiveDecay, ...] = ()
    """The champion's decay in earlier periods that were not reported, the oldest first."""
    delivered: tuple[str, ...] = ()
    """The names of the deliveries that were written to the source of deliveries, one for each period."""

    @property
    def skewed(self) -> bool:
        return any(each.different for each in self.skew)

    @property
    def alarm(self) -> bool:
        return self.skewed or any(each.alarm for each in self.decays)

    @property
    def decays(self) -> tuple[LiveDecay, ...]:
        """The decay in each period to report, the oldest period first."""
        return (*self.earlier, *([self.decay] if self.decay else []))


@dataclass
class _State:
    """The counts and rows collected from the log files that were joined so far."""

    labels: Mapping[bool, Labels]
    """All labels. The key True is for labels whose ids are hashed with the secret."""
    found: dict[bool, NDArray[np.bool_]]
    """Masks of the labels whose row is in the log."""
    outcomes: Counter[str] = field(default_factory=Counter)
    bundles: dict[str, Collected] = field(default_factory=lambda: defaultdict(Collected))
    skew: dict[str, Skew] = field(default_factory=dict)
    different_by_slice: dict[str, Counter[Slice]] = field(default_factory=lambda: defaultdict(Counter))
    rows_by_slice: dict[str, Counter[Slice]] = field(default_factory=lambda: defaultdict(Counter))
    champion: ChampionRows = field(default_factory=ChampionRows)


def run(
    params: Params,
    model: Model,
    today: date,
    log: LogStore,
    labels: LabelSource,
    bundle: Bundle | None,
    secret: str | None,
    champion: AtRelease | str | None = None,
    to: LogStore | None = None,
    engine: Engine = LOCAL,
    reported: Reported | None = None,
) -> Live:
    """Join a shipped log with labels, and check for skew and decay.

    Labels from after `today` are invalid. For training-serving skew, `bundle` scores its own logged records again.
    `champion` is the reference for decay: the champion at its release, or the reason why decay cannot be computed.
    Periods in `reported` are not checked again, except for the newest period. The joined rows are copied to the storage
    `to`, if it is given. With `live.pushgateway` in `params`, the loss by day is pushed there. Raises InputError if the
    log or the labels cannot be read, or if the loss cannot be pushed.
    """
    if to:
        check_place(to, log)
    names = log.files()
    if not names:
        raise InputError(f"{log.address} has no file of a prediction log; ship one with `slipway ship-log`.")
    atomic.remove_leftovers(JOINED)  # they can be as large as the log
    with _disk_errors(), atomic.replacing(JOINED) as fresh:
        task = _task(fresh.absolute(), params, model, today, log, labels, bundle, secret, champion, names)
        known = {keyed: Labels.load(folder) for keyed, folder in task.labels.items()}
        state = _State(known, {keyed: np.zeros(len(each.ids), dtype=bool) for keyed, each in known.items()})
        if task.champion:
            state.bundles[task.champion] = state.champion
        if task.by_request:
            task = replace(task, repeated=_repeated(task, known[False], names, fresh.with_name("repeated.npy"), engine))
        for joined in run_each(engine, partial(join_file, task, model if engine == LOCAL else None), names):
            _add(joined, state, params)
        found = _summary(params, state, champion, reported or Reported())
    if to:
        publish(JOINED, names, to)
    if params.live and params.live.deliver and found.period:
        source, first = LogStore(params.ingest.source), _first_day(names)
        delivered = deliver_periods(JOINED, names, found.period, first, model, params.live.deliver, source)
        found = found.model_copy(update={"delivered": delivered})
    found.write(LIVE)
    if params.live and params.live.pushgateway:
        push_loss(params.live.pushgateway, params.record.experiment, found.bundles)
    return found


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Convert the errors of a full disk to InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"{JOINED} cannot be written ({reason}); free space on its disk.") from None


def _repeated(task: JoinTask, labels: Labels, names: list[str], file: Path, engine: Engine) -> Path:
    """Find the labels whose request is in the log several times, and write a mask of these labels to `file`.

    A client chooses the id of its request, so it can repeat the id of an earlier request.
    """
    found, repeated = (np.zeros(len(labels.ids), dtype=bool) for _ in range(2))
    for positions in run_each(engine, partial(labelled_requests, task), names):
        each, count = np.unique(positions, return_counts=True)
        repeated[each[found[each] | (count > 1)]] = True
        found[each] = True
    np.save(file, repeated)
    return file.absolute()


def _task(
    output: Path,
    params: Params,
    model: Model,
    today: date,
    log: LogStore,
    labels: LabelSource,
    bundle: Bundle | None,
    secret: str | None,
    champion: AtRelease | str | None,
    names: list[str],
) -> JoinTask:
    """Return the part of the join's input that is the same for all files.

    Labels and ids are written to files, so that each process can read them.
    """
    folders: dict[bool, Path] = {}
    with fetched_labels(labels, columns_of_labels(model)) as files:
        is_by_request = by_request(next(read_labels(files)).columns)
        one_of_each = {name.partition("/")[2].partition("/")[0]: name for name in names}
        for keyed in {read_file(log, name)[1].keyed and not is_by_request for name in one_of_each.values()}:
            folders[keyed] = output.with_name(f"labels-{keyed}")
            _collect(files, model, params, today, secret_of_keys(keyed, secret)).save(folders[keyed])
    seen = None
    if isinstance(champion, AtRelease):
        seen = output.with_name("seen.npy")
        np.save(seen, champion.seen)
    return JoinTask(
        log=log,
        output=output,
        labels=folders,
        by_request=is_by_request,
        params=params,
        bundle=bundle.path.absolute() if bundle else None,
        bundle_hash=bundle.hash if bundle else None,
        champion=champion.bundle.hash if isinstance(champion, AtRelease) else None,
        repeated=None,
        seen=seen,
    )


def _collect(files: Mapping[str, Path], model: Model, params: Params, today: date, key: bytes) -> Labels:
    return collect(
        read_labels(files),
        model,
        params.task.kind == "classification",
        lambda rows: request_ids(rows) if by_request(rows.columns) else key_ids(rows, model, key),
        today,
    )


def _add(file: JoinedFile, state: _State, params: Params) -> None:
    """Add the result of one file. Files are added in the order of their names."""
    state.found[file.keyed][file.positions] = True
    state.outcomes.update(file.outcomes)
    rows = state.bundles[file.bundle]
    rows.add(file.losses, file.days, file.delays, file.slices)
    if file.answers and isinstance(rows, ChampionRows):
        rows.add_answers(file.answers, params.split.column)
    found = file.skew
    before = state.skew.get(file.bundle) or Skew(bundle=file.bundle, rows=0, different=0, largest=0.0, example=None)
    example, since = (before.example, before.since) if before.example or not found.first else found.first
    different, total = state.different_by_slice[file.bundle], state.rows_by_slice[file.bundle]
    for each, (count, number_of_rows) in found.by_slice.items():
        different[each] += count
        total[each] += number_of_rows
    state.skew[file.bundle] = Skew(
        bundle=file.bundle,
        rows=before.rows + found.rows,
        different=before.different + found.different,
        largest=max(before.largest, found.largest),
        example=example,
        since=since,
        unchecked=found.unchecked,
        worst=_worst_slice(different, total, before.different + found.different, before.rows + found.rows),
    )


def _worst_slice(different: Counter[Slice], rows: Counter[Slice], all_different: int, all_rows: int) -> str | None:
    """Describe the slice with the largest share of differing predictions, if it exceeds the share in all rows."""
    worst = max(different, key=lambda each: (different[each] / rows[each], different[each]), default=None)
    if worst is None or different[worst] / rows[worst] <= all_different / all_rows:
        return None
    return f"{' '.join(worst)} ({different[worst]:,} of {rows[worst]:,} answers)"


def _first_day(names: list[str]) -> date:
    """Return the first day of a log from the names of its files, such as `day=2026-11-26/...`."""
    return min(date.fromisoformat(name.removeprefix(DAY)[:10]) for name in names)


def _summary(params: Params, state: _State, champion: AtRelease | str | None, reported: Reported) -> Live:
    labels = list(state.labels.values())
    confidence = params.decay.confidence
    as_of = max((int(each.first_known.max()) for each in labels if len(each.ids)), default=0)
    found = {bundle: rows for bundle, rows in sorted(state.bundles.items()) if rows.days}
    everything = list(found.values())
    days = np.concatenate([each for one in everything for each in one.days])
    delays = np.concatenate([each for one in everything for each in one.delays])
    curve = maturity(days, delays, as_of)
    first = labels[0].counts
    period = newest_period(params.live.days if params.live else PERIOD_DAYS, as_of, curve)
    decay = LiveDecay(alarm=False, reason=champion) if isinstance(champion, str) else None
    earlier: list[LiveDecay] = []
    if isinstance(champion, AtRelease):
        decay = live_decay(state.champion, champion, period, params)
        if period and any(len(each) for each in state.champion.days):
            since = int(min(each.min() for each in state.champion.days if len(each)))
            before = earlier_periods(period, since, reported.through.get(champion.bundle.hash))
            earlier = [live_decay(state.champion, champion, each, params) for each in before]
        state.champion.forget_answers()
    return Live(
        loss=params.task.loss,
        confidence=confidence,
        counts=JoinCounts(
            rows=state.outcomes.total(),
            **{name: state.outcomes[name] for name in OUTCOMES},
            labels=first.labels,
            labels_invalid=first.invalid,
            labels_repeated=first.repeated,
            labels_corrected=first.corrected,
            labels_unknown=min(int((~each).sum()) for each in state.found.values()),
        ),
        maturity=curve,
        bundles=tuple(performance(bundle, rows, curve, as_of, confidence) for bundle, rows in found.items()),
        skew=tuple(each for _, each in sorted(state.skew.items())),
        period=period and (as_date(period[0]), as_date(period[1])),
        decay=decay,
        earlier=tuple(each for each in earlier if each.found),
    )


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
