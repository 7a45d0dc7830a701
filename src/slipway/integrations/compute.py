"""Process independent items in this process, in several processes, or on a Dask cluster."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from slipway.errors import CheckFailed, InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
CONNECT_SECONDS = 10
WORKER_SECONDS = 60
"""Time limit for the start of the first worker, which can need a new node in the cluster."""

LOST = {
    "TerminatedWorkerError": "A process was killed, probably because memory is short; lower `compute.processes` and "
    "run this again.",
    "KilledWorker": "Each Dask worker that got the same part was lost, probably because memory is short; give the "
    "workers more memory and run this again.",
    "FutureCancelledError": "The Dask scheduler was lost; start it and run this again.",
}
"""Maps names of exception classes to error messages. Names are used, because the packages are optional."""


@dataclass(frozen=True)
class Engine:
    """Where work runs: on this machine, in `processes` processes, or on a Dask cluster."""

    processes: int = 1
    address: str | None = None


LOCAL = Engine()
"""Engine that runs the work in the current process."""


def run_each(engine: Engine, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the result of `work` for each item, in the order of the items.

    `work` is pickled, and must be idempotent: if a Dask worker is lost, another worker repeats the work for its item.
    Raises InputError if a package is missing, or if the processes or the cluster cannot be used.
    """
    if engine == LOCAL:
        yield from map(work, items)
        return
    work = partial(_with_portable_errors, work)
    with _errors(engine):
        if engine.address is not None:
            with _client(engine.address) as client:
                # All items are submitted at once, so that workers that start later also get items.
                futures = deque(client.map(work, list(items), pure=False))
                while futures:
                    yield futures.popleft().result()
            return
        import joblib  # type: ignore[import-untyped]

        calls = (joblib.delayed(work)(item) for item in items)
        yield from joblib.Parallel(engine.processes, backend="loky", return_as="generator", batch_size=1)(calls)


def _with_portable_errors(work: Callable[[Item], Result], item: Item) -> Result:
    """Process an item in a worker process. Raise only exceptions that can be sent to the calling process.

    Built-in exceptions, InputError and CheckFailed are raised again. Any other exception becomes an InputError, because
    pickling often fails for an exception with its own arguments.
    """
    try:
        return work(item)
    except (InputError, CheckFailed) as error:
        raise (InputError if isinstance(error, InputError) else CheckFailed)(str(error)) from None
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        raise InputError(
            f"The work of a process failed ({type(error).__name__}); remove `compute` from params.yaml and run this "
            "with `slipway --debug` to see why."
        ) from None


@contextmanager
def joblib_on(engine: Engine) -> Iterator[None]:
    """Run the work of joblib, such as `n_jobs` in scikit-learn, on the Dask cluster. Without a cluster, do nothing.

    Inside the `with` block, the Dask interfaces of LightGBM and XGBoost use this cluster too.
    """
    if engine.address is None:
        yield
        return
    with _errors(engine):
        import joblib

        with _client(engine.address) as client, joblib.parallel_config(backend="dask", client=client):
            yield


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """Connect to a Dask scheduler, and wait for its first worker."""
    import distributed

    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"No Dask scheduler answers at {address} ({reason}); start `dask scheduler`, or correct the address."
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            raise InputError(
                f"The Dask scheduler at {address} has no workers; start some with `dask worker {address}`."
            ) from None
        yield client


@contextmanager
def _errors(engine: Engine) -> Iterator[None]:
    """Convert errors of joblib and Dask to InputError. Errors that the work itself raises are not changed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name in ("joblib", "distributed"):
            raise InputError(
                f"The package {error.name} is not installed, but `compute` needs it; add it to requirements/model.in, "
                "or to requirements/batch.in for the batch image, and run `make lock`."
            ) from None
        if engine.address is None:
            raise
        raise InputError(
            f"The Dask workers at {engine.address} lack the module {error.name}; start them with the packages and the "
            "code of this repository."
        ) from None
    except Exception as error:
        if type(error).__name__ not in LOST:
            raise
        raise InputError(LOST[type(error).__name__]) from None
