"""The prediction log: requests and their predictions, written to files by a background thread.

The event loop only collects rows and encodes them in small blocks, which takes about a microsecond per row. The
background thread writes the blocks as segments (`log_segments`). If rows cannot be written, they are dropped and
counted, and the server continues to answer requests.
"""

import logging
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slipway.serving.log_segments import (
    Account,
    Block,
    Header,
    SingleRows,
    encode,
    remove_unfinished,
    write_segment,
)
from slipway.serving.logged_columns import LoggedColumns, is_sampled
from slipway.serving.predict import Answer, Predicted
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings

logger = logging.getLogger("slipway.serving")

BLOCK_ROWS = 64
"""Number of one-row requests that are encoded together. Encoding delays other requests by about 50 µs."""
BLOCK_BYTES = 262_144
"""Even few waiting requests are encoded as soon as their bodies reach this total size in bytes."""
SEGMENT_BYTES = 4 * 1_048_576
MAX_QUEUE = 16 * 1_048_576
"""Maximum size in bytes of the blocks that wait for the thread. If the disk is too slow, further rows are dropped."""
PAUSE = 0.001
"""Pause in seconds between pieces of a segment. Without it, writing a segment delays requests by milliseconds."""
LAST_WRITE = 5.0
"""Time limit in seconds for the thread to write the last segments when the server stops."""
IS_LITTLE = sys.byteorder == "little"
"""True if float32 is little-endian already. `astype` takes longer than `tobytes`, even if it changes nothing."""
ID_START = len(b"x-request-id: ")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS_PER_DAY = 86_400


class QueuedBlock(Struct, frozen=True, gc=False):
    day: int
    rows: int
    frame: bytes


class PredictionLog(Collector):
    """The log of one server process.

    The thread of the log runs during the `with` block, and writes the waiting rows at the end.
    """

    def __init__(self, folder: Path, model: ServedModel, settings: Settings) -> None:
        self.folder = folder
        secret = settings.prediction_log_secret
        self._columns = LoggedColumns(
            model.schema, model.records.columns, secret.get_secret_value() if secret else None
        )
        self._share = settings.prediction_log_share
        self._needs_keys = self._columns.keyed or self._share < 1
        self._max_bytes = settings.prediction_log_max_bytes
        self._seconds = settings.prediction_log_seconds
        self._bundle, self._model = model.hash, model.name
        self._outputs = model.schema.outputs
        decision = model.schema.decision
        self._decision = None if decision is None else decision.model_dump(mode="json")
        self._instance = os.urandom(8).hex()
        self._number = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="prediction log", daemon=True)
        self._day = self._day_start = self._day_end = 0
        self._pending: list[tuple[bytes, float, float, Predicted]] = []
        self._pending_bytes = 0
        self._queue: deque[QueuedBlock] = deque()
        self._queued_bytes = 0
        self._waiting_rows = 0  # in the queue, and in the segment that is being written
        self._answered = self._logged = self._sampled_out = 0
        self._dropped: Counter[str] = Counter()
        self._closing = self._ended = False
        self._folder_bytes = 0
        self._failure = ""

    def __enter__(self) -> "PredictionLog":
        """Remove the unfinished segments that a killed process left in the folder, and start the thread."""
        if self._columns.refusal:
            logger.error("the prediction log is off", extra={"reason": self._columns.refusal})
        try:
            remove_unfinished(self.folder)
        except OSError as error:
            self._report(error)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write the waiting rows, and stop the thread."""
        with self._lock:
            self._closing = True
            self._changed.notify()
        self._thread.join(LAST_WRITE)

    def add(self, answer: Answer, predicted: Predicted, seconds: float) -> None:
        """Add the rows of a request that was answered within a number of seconds."""
        now = time.time()
        with self._lock:
            self._answered += len(predicted.predictions)
            if not self._day_start <= now < self._day_end:
                self._start_day(now)
            if self._columns.refusal:
                self._drop("not_allowed", len(predicted.predictions))
            elif predicted.is_single:
                self._pending.append((answer.head, now, seconds, predicted))
                self._pending_bytes += predicted.size
                if len(self._pending) >= BLOCK_ROWS or self._pending_bytes >= BLOCK_BYTES:
                    self._seal()
            else:
                self._seal()
                self._add_batch((_request_id(answer.head), now, seconds), predicted)

    def account(self) -> Account:
        """Return the number of rows with each outcome since the server started."""
        with self._lock:
            return self._account()

    def _account(self) -> Account:
        return Account(
            answered=self._answered,
            logged=self._logged,
            sampled_out=self._sampled_out,
            dropped=self._dropped.total(),
            waiting=len(self._pending) + self._waiting_rows,
        )

    def _start_day(self, now: float) -> None:
        self._seal()
        self._day = int(now // SECONDS_PER_DAY)
        self._day_start, self._day_end = self._day * SECONDS_PER_DAY, (self._day + 1) * SECONDS_PER_DAY

    def _seal(self) -> None:
        """Encode the pending rows. The caller must hold the lock."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        rows = []
        for head, now, seconds, predicted in pending:
            request = _request_id(head)
            try:
                key = self._columns.row_key(predicted.values) if self._needs_keys else None
                if self._share < 1 and not is_sampled(key or request, self._share):
                    self._sampled_out += 1
                    continue
                stored = self._columns.stored_row(predicted.values)
                rows.append((request, now, seconds, key, stored, _as_bytes(predicted.predictions)))
            except Exception as error:  # a bug must not fail the request
                self._drop("not_encoded", 1, error)
        if rows:
            self._enqueue(len(rows), SingleRows(rows))

    def _add_batch(self, request: tuple[str, float, float], predicted: Predicted) -> None:
        values, predictions = predicted.values, predicted.predictions
        chosen = [*range(len(predictions))]
        try:
            keys = self._columns.keys(values) if self._needs_keys else None
            if self._share < 1:
                texts = keys or [request[0]] * len(chosen)
                chosen = [i for i in chosen if is_sampled(texts[i], self._share)]
                self._sampled_out += len(predictions) - len(chosen)
                if not chosen:
                    return
                values = [[column[i] for i in chosen] for column in values]
                keys = [keys[i] for i in chosen] if keys else None
                predictions = predictions[chosen]
            stored, answers = self._columns.stored(values), _as_bytes(predictions)
            block = Block([request], [0] * len(chosen), chosen, keys, stored, answers)
        except Exception as error:  # a bug must not fail the request
            self._drop("not_encoded", len(chosen), error)
            return
        self._enqueue(len(chosen), block)

    def _enqueue(self, rows: int, block: Block | SingleRows) -> None:
        try:
            frame = encode(block)
        except Exception as error:  # a bug must not fail the request
            self._drop("not_encoded", rows, error)
            return
        if self._ended:
            self._drop("writer_ended", rows)
        elif self._queued_bytes + len(frame) > MAX_QUEUE:
            self._drop("queue_full", rows)
        else:
            self._queue.append(QueuedBlock(self._day, rows, frame))
            self._queued_bytes += len(frame)
            self._waiting_rows += rows
            if self._queued_bytes >= SEGMENT_BYTES:
                self._changed.notify()

    def _drop(self, reason: str, rows: int, error: BaseException | None = None) -> None:
        self._dropped[reason] += rows
        if error is not None:
            self._report(error)

    def _report(self, error: BaseException) -> None:
        """Log an error if it differs from the error that was logged last.

        The message of the error is left out, because it can quote a request.
        """
        failure = f"{type(error).__name__} {getattr(error, 'strerror', None) or ''}".strip()
        if failure != self._failure:
            self._failure = failure
            logger.error("the prediction log loses rows", extra={"error": failure, "folder": str(self.folder)})

    def _run(self) -> None:
        try:
            while (blocks := self._take()) is not None:
                self._write(blocks)
        except BaseException as error:
            self._report(error)
            raise
        finally:
            with self._lock:
                self._ended = True
                self._seal()
                self._drop("writer_ended", self._waiting_rows)
                self._queue.clear()
                self._queued_bytes = self._waiting_rows = 0

    def _take(self) -> list[QueuedBlock] | None:
        """Wait until a segment is due, and return its blocks. Return None when the log is closed and empty."""
        with self._lock:
            self._changed.wait_for(lambda: self._closing or self._queued_bytes >= SEGMENT_BYTES, self._seconds)
            if self._queued_bytes < SEGMENT_BYTES:
                self._seal()
            if self._closing and not self._queue:
                return None
            taken: list[QueuedBlock] = []
            size = 0
            while self._queue and size < SEGMENT_BYTES and self._queue[0].day == (taken or self._queue)[0].day:
                taken.append(self._queue.popleft())
                size += len(taken[-1].frame)
            self._queued_bytes -= size
            return taken

    def _write(self, blocks: list[QueuedBlock]) -> None:
        if not blocks:
            return
        rows = sum(block.rows for block in blocks)
        frames = [block.frame for block in blocks]
        reason = "not_written"
        try:
            self._folder_bytes = _size(self.folder)
            if self._folder_bytes + sum(map(len, frames)) > self._max_bytes:
                reason = "folder_full"
            else:
                write_segment(self.folder, self._header(blocks[0].day, rows), frames, PAUSE)
                reason = ""
        except Exception as error:
            self._report(error)
        self._number += 1  # also after a failure, so that no two segments have the same name
        with self._lock:
            self._waiting_rows -= rows
            if reason:
                self._drop(reason, rows)
            else:
                self._logged += rows
                self._failure = ""

    def _header(self, day: int, rows: int) -> Header:
        account = self.account()
        return Header(
            bundle=self._bundle,
            model=self._model,
            day=(EPOCH + timedelta(days=day)).date().isoformat(),
            instance=self._instance,
            number=self._number,
            rows=rows,
            columns=self._columns.columns,
            outputs=self._outputs,
            key=self._columns.key,
            keyed=self._columns.keyed,
            account=Account(
                account.answered, account.logged + rows, account.sampled_out, account.dropped, account.waiting - rows
            ),
            decision=self._decision,
        )

    def collect(self) -> Iterator[Metric]:
        """Yield the number of rows with each outcome as metrics. prometheus_client calls this method."""
        with self._lock:
            account, dropped = self._account(), dict(self._dropped)
        yield CounterMetricFamily("slipway_prediction_log_answered_rows", "Rows that were answered.", account.answered)
        rows = CounterMetricFamily(
            "slipway_prediction_log_rows", "Answered rows by their outcome.", labels=["outcome", "reason"]
        )
        rows.add_metric(["logged", ""], account.logged)
        rows.add_metric(["sampled_out", ""], account.sampled_out)
        for reason in ("folder_full", "not_allowed", "not_encoded", "not_written", "queue_full", "writer_ended"):
            rows.add_metric(["dropped", reason], dropped.get(reason, 0))
        yield rows
        yield GaugeMetricFamily(
            "slipway_prediction_log_waiting_rows", "Rows that are not written yet.", account.waiting
        )
        yield GaugeMetricFamily(
            "slipway_prediction_log_folder_bytes", "Size of the segments in the folder.", self._folder_bytes
        )


def _as_bytes(predictions: NDArray[np.float32]) -> bytes:
    return predictions.tobytes() if IS_LITTLE else predictions.astype("<f4").tobytes()


def _request_id(head: bytes) -> str:
    """Return the request id from the first header line of a response."""
    return str(head[ID_START : head.index(b"\r")], "ascii")


def _size(folder: Path) -> int:
    """Return the size of all files in a folder. The size includes corrupt segments, which stay in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for path in folder.iterdir():
        try:
            size += path.lstat().st_size
        except FileNotFoundError:  # the segment was shipped meanwhile
            continue
    return size
