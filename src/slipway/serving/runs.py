"""Queue the runs of the model graph if they are slow, or if one run for several requests is faster than separate runs.

Each iteration of the event loop makes at most one queued run, so that probes and other requests are answered in
between. A request with more rows than the limit of one run is divided into several runs. Smaller requests share a run
if sharing is faster.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from slipway.bundle import Tensors
from slipway.errors import InputError
from slipway.serving.served_model import GOLDEN_TOLERANCE, ServedModel

Predictions = NDArray[np.float32]
Sharing = Literal["auto", "on", "off"]

SIZES = (1, 2, 3, 4, 7, 8, 16, 32, 64, 128, 256)
"""At startup, the server measures the time of a run with each of these numbers of rows."""
SHARED_ROWS = 64
"""Maximum number of rows in a run that several requests share. Larger runs are hardly faster per row."""
SHARED_TIMES = 2
"""A shared run can have this many times the rows of another run, because runs of a slow model with few rows are slow
per row."""
COMPARED_ROWS = 16
"""Number of rows in the run that tests sharing. Its time per row is compared with a run of one row."""
REPEATS = 5
REPEAT_SECONDS = 0.01
"""Time limit in seconds for measuring the runs of one size.

A run is repeated once, and up to `REPEATS` times within this limit. The shortest time is used, because the first run of
a size is slow.
"""
SHARING_SECONDS = 5e-6
SHARING_PART = 0.05
"""Requests share runs only if sharing saves enough time per row: more than `SHARING_SECONDS`, and more than this share
of the time of a run with one row.

Queueing a request costs up to 5 µs. During the measurement, runs follow each other directly, so the processor's caches
contain the model. Under real load, a run takes longer, so sharing saves more time than the measurement shows.
"""


class Plan(Struct, frozen=True):
    """How the server divides rows into runs. The default makes one run for each request."""

    max_rows: int = 2**62
    """Maximum number of rows in a run for one request."""
    seconds_per_row: float = 0.0
    is_shared: bool = False
    """True if requests that arrive together share a run."""


ONE_RUN_EACH = Plan()


class Job:
    """The rows of one request.

    `since` is the time on the event loop's clock since which the client has probably been waiting. `done` is
    called with the predictions, or with the exception that a run raised.
    """

    __slots__ = ("done", "parts", "rows", "since", "start", "tensors")

    def __init__(self, tensors: Tensors, rows: int, since: float, done: "Done") -> None:
        self.tensors = tensors
        self.rows = rows
        self.since = since
        self.start = 0  # the first row without a prediction
        self.parts: list[Predictions] = []
        self.done = done


Done = Callable[[Predictions | Exception], None]


class Runs:
    """The queue of rows that wait for a run of the model graph."""

    def __init__(self, model: ServedModel, plan: Plan, max_records: int) -> None:
        self.plan = plan
        self.cuts = plan.max_rows < max_records
        self.waiting_seconds = 0.0
        """Estimated time in seconds that a new request with few rows would wait for its response."""
        self._model = model
        self._jobs: deque[Job] = deque()
        self._is_scheduled = False
        self._short_jobs = 0  # number of queued jobs that need one run
        self._is_slow = plan.max_rows < SHARED_ROWS  # the order matters little for short runs
        self._was_shared = False
        self._waiting_before = 0  # number of jobs for which the next run already waits
        self._shared_rows = min(SHARED_ROWS, SHARED_TIMES * plan.max_rows) if plan.is_shared else 1

    def add(self, tensors: Tensors, rows: int, since: float, done: Done) -> Job:
        """Add the rows of a request. `tensors` must not be changed afterwards."""
        job = Job(tensors, rows, since, done)
        self._jobs.append(job)
        self._short_jobs += self._is_short(job)
        self.waiting_seconds += self._seconds_of_a_run(job)
        self._schedule()
        return job

    def finish(self, job: Job) -> None:
        """Run a queued job now, without the rows of other jobs."""
        if job in self._jobs:
            self.cancel(job)
            self._run_alone(job)

    def cancel(self, job: Job) -> None:
        """Remove a job from the queue. The request of this job gets no response."""
        if job in self._jobs:
            self._jobs.remove(job)
            self._leave(job)

    @property
    def is_contended(self) -> bool:
        """True if the next short request probably has competitors: some are queued, or the latest run had several."""
        return self._was_shared or self._short_jobs > 0

    def seconds_ahead(self, rows: int) -> float:
        """Return the delay in seconds that queued jobs would cause for a new request with this number of rows.

        Jobs take turns, one run at a time. Each queued job therefore delays the new request by the run time of the
        job's rows, at most by that of the request's rows.
        """
        return sum(min(job.rows - job.start, rows) for job in self._jobs) * self.plan.seconds_per_row

    def _seconds_of_a_run(self, job: Job) -> float:
        return min(job.rows, self.plan.max_rows) * self.plan.seconds_per_row

    def _is_short(self, job: Job) -> bool:
        return job.rows <= self.plan.max_rows

    def _leave(self, job: Job) -> None:
        self._short_jobs -= self._is_short(job)
        self.waiting_seconds = self.waiting_seconds - self._seconds_of_a_run(job) if self._jobs else 0.0

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run_next)

    def _run_next(self) -> None:
        self._is_scheduled = False
        if not self._jobs:
            return
        if self._is_filling():
            self._schedule()
            return
        if self._is_slow and len(self._jobs) > self._shared_rows:
            self._jobs = deque(sorted(self._jobs, key=attrgetter("since")))
        job = self._jobs.popleft()
        try:
            if self._is_short(job):
                self._run_together(self._with_others(job))
            else:
                self._run_part(job)
        finally:
            if self._jobs:
                self._schedule()

    def _is_filling(self) -> bool:
        """Return whether the next run waits for another iteration, because requests are still arriving.

        Clients whose requests shared a run send their next requests at about the same time. One iteration reads only
        some of these requests, so a run starts only after an iteration without new requests, or when it is full.
        """
        waiting = len(self._jobs)
        fills = self.plan.is_shared and self._waiting_before < waiting < self._shared_rows
        self._waiting_before = waiting if fills else 0
        return fills

    def _run_part(self, job: Job) -> None:
        """Run the model graph for the next rows of a job.

        All runs of a job have about the same number of rows. A last run with only one row is avoided, because the
        prediction of such a run can differ slightly.
        """
        runs = math.ceil((job.rows - job.start) / self.plan.max_rows)
        stop = job.start + math.ceil((job.rows - job.start) / runs)
        try:
            job.parts.append(self._model.run({name: each[job.start : stop] for name, each in job.tensors.items()}))
            job.start = stop
            if stop < job.rows:
                job.since = asyncio.get_running_loop().time()
                self._jobs.append(job)
                return
            predictions = self._model.accept(job.tensors, np.concatenate(job.parts))
        except Exception as error:
            self._leave(job)
            job.done(error)
        else:
            self._leave(job)
            job.done(predictions)

    def _with_others(self, job: Job) -> list[Job]:
        """Return a job together with the next queued jobs that fit into the same run.

        Remove these jobs from the queue.
        """
        jobs, rows = [job], job.rows
        self._leave(job)
        while self._jobs and rows + self._jobs[0].rows <= self._shared_rows:
            other = self._jobs.popleft()
            self._leave(other)
            jobs.append(other)
            rows += other.rows
        return jobs

    def _run_together(self, jobs: list[Job]) -> None:
        self._was_shared = len(jobs) > 1
        if not self._was_shared:
            self._run_alone(jobs[0])
            return
        tensors = {name: np.concatenate([job.tensors[name] for job in jobs]) for name in jobs[0].tensors}
        try:
            predictions = self._model.predict(tensors)
        except Exception:  # one request has an invalid prediction, so run each request alone
            for job in jobs:
                self._run_alone(job)
            return
        start = 0
        for job in jobs:
            job.done(predictions[start : start + job.rows])
            start += job.rows

    def _run_alone(self, job: Job) -> None:
        try:
            predictions = self._model.predict(job.tensors)
        except Exception as error:
            job.done(error)
        else:
            job.done(predictions)


def measure(model: ServedModel, max_seconds: float, sharing: Sharing) -> Plan:
    """Measure the time of runs on the golden rows. In the returned plan, no run for one request exceeds `max_seconds`.

    With `auto`, requests share runs if that is faster and gives exactly the same predictions. Raises InputError if
    `sharing` is `on`, but the prediction for a row depends on the other rows in the run.
    """
    golden = model.golden_tensors()
    rows = len(next(iter(golden.values())))
    singles = np.concatenate([model.run(_rows(golden, [i])) for i in range(rows)])
    seconds: dict[int, float] = {}
    is_equal = True
    for size in SIZES:
        chosen = [i % rows for i in range(size)]
        seconds[size], predictions = _run_repeatedly(model, _rows(golden, chosen))
        if size <= SHARED_ROWS and sharing != "off":
            is_equal &= np.array_equal(predictions, singles[chosen])
            if sharing == "on" and not np.allclose(predictions, singles[chosen], GOLDEN_TOLERANCE, GOLDEN_TOLERANCE):
                raise InputError(
                    f"The prediction for a row changes in a run of {size} rows; set SLIPWAY_SHARE_RUNS=off."
                )
        if seconds[size] > max_seconds / 2:
            break
    per_row = seconds[max(seconds)] / max(seconds)
    compared = max(size for size in seconds if size <= COMPARED_ROWS)
    saved = seconds[1] - seconds[compared] / compared
    is_faster = is_equal and saved > max(SHARING_SECONDS, SHARING_PART * seconds[1])
    return Plan(max(1, int(max_seconds / per_row)), per_row, sharing == "on" or (sharing == "auto" and is_faster))


def _rows(tensors: Tensors, chosen: list[int]) -> Tensors:
    return {name: each[chosen] for name, each in tensors.items()}


def _run_repeatedly(model: ServedModel, tensors: Tensors) -> tuple[float, Predictions]:
    """Repeat a run of the model graph, and return its shortest time and its predictions.

    If the model runs on a CPU, CPU time is used.
    """
    clock = time.thread_time if model.runs_on_cpu else time.perf_counter
    times: list[float] = []
    while len(times) < 2 or (len(times) < REPEATS and sum(times) < REPEAT_SECONDS):
        started = clock()
        predictions = model.run(tensors)
        times.append(clock() - started)
    return max(min(times), 1e-9), predictions
