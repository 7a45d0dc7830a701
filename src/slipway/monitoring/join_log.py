"""Join logged predictions with the true values, and measure the performance → build/joined/, build/live.json."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from slipway import atomic
from slipway.artifacts import Artifact
from slipway.bundle import Bundle, Decision
from slipway.config import PERIOD_DAYS, Params
from slipway.contract import Model
from slipway.errors import InputError
from slipway.integrations.label_source import fetched_labels
from slipway.integrations.log_store import KNOWN_AT, RECORD, TRUTH, LogStore
from slipway.monitoring.joined_rows import deliver, publish
from slipway.monitoring.labels import Labels, by_request, collect, key_ids, read_labels, request_ids
from slipway.monitoring.live_decay import ChampionRows, LiveDecay, as_date, live_decay, newest_period
from slipway.monitoring.live_performance import (
    UNKNOWN,
    Collected,
    LivePart,
    LivePerformance,
    Maturity,
    maturity,
    performance,
)
from slipway.monitoring.log_tables import answer_columns, read_header
from slipway.pipeline.decay import AtRelease
from slipway.pipeline.logged_rows import logged_rows
from slipway.pipeline.measure import measure_of
from slipway.pipeline.number_text import number
from slipway.pipeline.row_ids import ids_of_keys
from slipway.pipeline.slices import slice_labels
from slipway.pipeline.tensors import features, tensors
from slipway.serving.log_segments import Header
from slipway.serving.logged_columns import secret_of_keys

LIVE = Path("build/live.json")
JOINED = Path("build/joined")
OUTCOMES = ("joined", "missing", "contradictory", "known_before", "other_class")


class JoinCounts(Artifact):
    """The number of logged rows with each outcome of the join, and numbers of labels."""

    rows: int
    joined: int
    missing: int
    """Rows without a label."""
    contradictory: int
    """Rows with several different labels of the same time."""
    known_before: int
    """Rows whose label was known before the day of the request, so the label belongs to an earlier event."""
    other_class: int
    """Rows whose label is not a class of the model."""
    labels: int
    labels_invalid: int
    labels_repeated: int
    labels_corrected: int
    labels_unknown: int
    """Labels whose row is not in the log."""


class Skew(Artifact):
    """Training-serving skew: logged answers of a bundle, compared with its answers to the same records now.

    `different` is the number of answers that differ, and `largest` is the largest difference.
    """

    bundle: str
    rows: int
    different: int
    largest: float
    example: str | None
    """Id of a request whose answer differs, the first in the log."""
    since: date | None = None
    """The day of this request."""
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
    """The newest period in which all days are mature."""
    decay: LiveDecay | None
    """None if no champion was given."""
    delivered: str | None = None
    """The name of the delivery with the rows of `period`, if it was written to the source of deliveries."""

    @property
    def skewed(self) -> bool:
        return any(each.different for each in self.skew)

    @property
    def alarm(self) -> bool:
        return self.skewed or (self.decay is not None and self.decay.alarm)


@dataclass
class _State:
    """The counts and rows collected from the log files that were read so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    found: dict[bool, NDArray[np.bool_]] = field(default_factory=dict)
    bundles: dict[str, Collected] = field(default_factory=lambda: defaultdict(Collected))
    skew: dict[str, Skew] = field(default_factory=dict)
    champion: ChampionRows = field(default_factory=ChampionRows)


def run(
    params: Params,
    model: Model,
    log: LogStore,
    labels: str,
    bundle: Bundle | None,
    secret: str | None,
    champion: AtRelease | str | None = None,
    to: LogStore | None = None,
) -> Live:
    """Join a shipped log with labels, and check for skew and decay.

    For training-serving skew, `bundle` scores its own logged records again. For decay, `champion` is the champion at
    its release, or the reason why decay cannot be computed. The joined rows are copied to the storage `to`, if it is
    given. Raises InputError if the log or the labels cannot be read.
    """
    names = log.files()
    if not names:
        raise InputError(f"{log.address} has no file of a prediction log; ship one with `slipway ship-log`.")
    classification = params.task.kind == "classification"

    state = _State()
    if isinstance(champion, AtRelease):
        state.bundles[champion.bundle.hash] = state.champion
    with fetched_labels(labels) as files, atomic.replacing(JOINED) as fresh:
        is_by_request = by_request(next(read_labels(files)).columns)

        @cache
        def labels_for(keyed: bool) -> Labels:
            key = secret_of_keys(keyed, secret)
            return collect(
                read_labels(files),
                model,
                classification,
                lambda rows: request_ids(rows) if by_request(rows.columns) else key_ids(rows, model, key),
            )

        for name in names:
            table, header = _read(log, name)
            known = labels_for(header.keyed and not is_by_request)
            joined = _join(table, header, known, is_by_request, params, model, state, champion)
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(joined, fresh / name, compression="zstd")
            _check_skew(table, header, bundle, params.gate.equality_tolerance, state)
        found = _summary(params, state, [labels_for(keyed) for keyed in state.found], champion)
    if to:
        publish(JOINED, names, to, log)
    if params.live and params.live.deliver and found.period:
        source = LogStore(params.ingest.source)
        delivered = deliver(JOINED, names, found.period, model, params.live.deliver, source)
        found = found.model_copy(update={"delivered": delivered})
    found.write(LIVE)
    return found


def _read(log: LogStore, name: str) -> tuple[pa.Table, Header]:
    table = pq.read_table(io.BytesIO(log.read(name)))
    try:
        return table, read_header(table.schema)
    except ValueError as error:
        raise InputError(f"{log.address}/{name} cannot be joined: {error}; name the address of a log.") from None


def _join(
    table: pa.Table,
    header: Header,
    labels: Labels,
    is_by_request: bool,
    params: Params,
    model: Model,
    state: _State,
    champion: AtRelease | str | None,
) -> pa.Table:
    """Join one file, add its rows to the state, and return them with the columns `truth` and `known_at`."""
    ids = request_ids(table.select(["request_id", "row"]).to_pandas()) if is_by_request else _keys(table, header, model)
    positions, hit = labels.find(ids)
    found = state.found.setdefault(header.keyed and not is_by_request, np.zeros(len(labels.ids), dtype=bool))
    found[positions[hit]] = True
    days = table["time"].to_numpy().astype("datetime64[D]").astype(np.int32)
    truth = _truth(labels, positions, header) if len(labels.ids) else np.full(len(ids), np.nan)
    first = labels.first_known[positions] if len(labels.ids) else days
    contradictory = hit & (labels.contradictory[positions] if len(labels.ids) else False)
    before = hit & ~contradictory & (first < days)
    other = hit & ~contradictory & ~before & np.isnan(truth)
    known = hit & ~contradictory & ~before & ~other
    sums = (known, ~hit, contradictory, before, other)
    state.outcomes.update({name: int(each.sum()) for name, each in zip(OUTCOMES, sums, strict=True)})
    state.rows += len(ids)
    answers = np.column_stack([table[name].to_numpy() for name in answer_columns(header)]).astype(np.float64)
    losses = np.full(len(ids), np.nan)
    if known.any():
        losses[known] = _losses(table.filter(pa.array(known)), header, truth[known], answers[known], params, model)
    delays = np.where(known, first - days, UNKNOWN).astype(np.int32)
    rows = state.bundles[header.bundle]
    rows.add(losses, days, delays, _slices(table, params))
    if rows is state.champion and isinstance(champion, AtRelease):
        rows.add_answers(table, known, _seen(table, header, champion), truth, answers, params)
    true = [header.outputs[int(each)] if params.task.kind == "classification" else each for each in truth[known]]
    whole: list[Any] = [None] * len(ids)
    for i, each in zip(np.flatnonzero(known), true, strict=True):
        whole[i] = each
    known_at = pa.array(np.where(known, first, 0), pa.int32(), mask=~known).cast(pa.date32())
    kind = pa.string() if params.task.kind == "classification" else pa.float64()
    return table.append_column(TRUTH, pa.array(whole, kind)).append_column(KNOWN_AT, known_at)


def _keys(table: pa.Table, header: Header, model: Model) -> NDArray[np.uint64]:
    if tuple(each.name for each in header.key) != tuple(model.KEY):
        reason = "KEY had other columns then" if header.key else "requests lack a column of KEY"
        raise InputError(f"Rows of bundle {header.bundle} cannot be joined by KEY, because {reason}; use request_id.")
    return ids_of_keys(table["key"].to_pylist())


def _seen(table: pa.Table, header: Header, champion: AtRelease) -> NDArray[np.bool_]:
    """Return a mask of the rows that the champion was trained or judged on. Rows without a readable key are new."""
    if header.keyed or not header.key:
        return np.zeros(len(table), dtype=bool)
    return champion.has_seen(ids_of_keys(table["key"].to_pylist()))


def _truth(labels: Labels, positions: NDArray[np.intp], header: Header) -> NDArray[np.float64]:
    """Return the true value of each row. For a classification, return the position of the true class in the outputs.

    The position is NaN if the model does not have the class.
    """
    truth = labels.truth[positions]
    if len(header.outputs) == 1:
        return truth
    codes = np.array([header.outputs.index(each) if each in header.outputs else np.nan for each in labels.classes])
    return codes[truth.astype(np.intp)]


def _slices(table: pa.Table, params: Params) -> pd.DataFrame:
    """Return the slices of each row. Columns whose values are not in the log, or only as hashes, define no slices."""
    names = {name for name in params.evaluate.slices if RECORD + name in table.column_names}
    rows = table.select([RECORD + name for name in names]).to_pandas().rename(columns=lambda name: name[len(RECORD) :])
    rules = {
        name: rule
        for name, rule in params.evaluate.slices.items()
        if name in names and (rule == "values" or rows[name].dtype.kind in "biuf")
    }
    return slice_labels(rows, rules)


def _losses(
    table: pa.Table,
    header: Header,
    truth: NDArray[np.float64],
    answers: NDArray[np.float64],
    params: Params,
    model: Model,
) -> NDArray[np.float64]:
    measure = measure_of(params.task, model, header.outputs if params.task.kind == "classification" else None)
    decision = None if header.decision is None else Decision.model_validate(header.decision)
    rows = measure.features(_records(table, header)) if params.task.loss_is_own else pd.DataFrame()
    return measure.losses(truth, answers, rows, decision)


def _records(table: pa.Table, header: Header) -> pd.DataFrame:
    """Return the logged records as validated rows. Hashed columns are left out."""
    columns = [column for column in header.columns if column.type != "hash"]
    return logged_rows(table.select([RECORD + column.name for column in columns]).to_pandas(), columns)


def _check_skew(table: pa.Table, header: Header, bundle: Bundle | None, tolerance: float, state: _State) -> None:
    """Score the records of one file again, and count the answers that differ by more than `tolerance`.

    Smaller differences are ignored, because processors add numbers in different orders.
    """
    reason = _unchecked(header, bundle)
    before = state.skew.get(header.bundle) or Skew(
        bundle=header.bundle, rows=0, different=0, largest=0.0, example=None, unchecked=reason
    )
    if reason is not None or bundle is None or not len(table):
        state.skew[header.bundle] = before
        return
    rows = _records(table, header)
    again = bundle.predict(tensors(features(rows, bundle.schema), bundle.schema))
    logged = np.column_stack([table[name].to_numpy() for name in answer_columns(header)])
    size = np.abs(again)
    scale = np.maximum(size, max(size.mean() * 1e-2, np.finfo(np.float32).tiny)) if len(header.outputs) == 1 else 1.0
    difference = np.max(np.abs(logged - again) / scale, axis=1)
    different = np.flatnonzero(~(difference <= tolerance))
    first = int(different[0]) if len(different) else None
    state.skew[header.bundle] = Skew(
        bundle=header.bundle,
        rows=before.rows + len(table),
        different=before.different + len(different),
        largest=max(before.largest, float(difference.max())),
        example=before.example or (None if first is None else table["request_id"][first].as_py()),
        since=before.since or (None if first is None else table["time"][first].as_py().date()),
    )


def _unchecked(header: Header, bundle: Bundle | None) -> str | None:
    if bundle is None or bundle.hash != header.bundle:
        return "it is not the champion"
    logged = {column.name for column in header.columns if column.type != "hash"}
    private = [column.name for column in bundle.schema.columns if column.name not in logged]
    return f"the column {private[0]} is private" if private else None


def _summary(params: Params, state: _State, labels: list[Labels], champion: AtRelease | str | None) -> Live:
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
    if isinstance(champion, AtRelease):
        decay = live_decay(state.champion, champion, period, params)
        state.champion.forget_answers()
    return Live(
        loss=params.task.loss,
        confidence=confidence,
        counts=JoinCounts(
            rows=state.rows,
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
                table.add_row(*_cells(part))
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
        f"{rows.other_class:,} have labels of another class"
    )
    yield (
        f"{labels:,} labels: {rows.labels_repeated:,} repeat another one, {rows.labels_corrected:,} of them with "
        f"another truth, {rows.labels_unknown:,} are not in the log, {rows.labels_invalid:,} are invalid"
    )
    for each in live.skew:
        yield f"{'ALARM: ' if each.different else ''}{skew_sentence(each)}"
    if live.delivered:
        yield f"{live.delivered} was written to the source of deliveries"
    if live.decay:
        yield f"decay: {'ALARM' if live.decay.alarm else 'no alarm'}: {live.decay.reason}"


def skew_sentence(skew: Skew) -> str:
    bundle = skew.bundle[:12]
    if skew.unchecked:
        return f"rows of bundle {bundle} were not scored again, because {skew.unchecked}"
    if skew.different:
        return (
            f"{skew.different:,} of {skew.rows:,} answers of bundle {bundle} differ from those of the pipeline by up "
            f"to {skew.largest:.2g}, for the first time on {skew.since}, in the answer to request {skew.example}"
        )
    return f"all {skew.rows:,} answers of bundle {bundle} are those of the pipeline"
