"""A missing package, a cluster that does not answer, and lost processes are errors of one sentence."""

import os
import signal
import sys
from collections.abc import Callable

import distributed
import pytest
from distributed.client import FutureCancelledError
from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]

from slipway.errors import InputError
from slipway.integrations import compute
from slipway.integrations.compute import LOCAL, Engine, joblib_on, run_each

NOWHERE = Engine(address="tcp://127.0.0.1:9")


def kill(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_joblib(engine: Engine) -> None:
    with joblib_on(engine):
        pass


def each(engine: Engine) -> None:
    list(run_each(engine, abs, [1]))


@pytest.mark.parametrize("use", [each, on_joblib])
@pytest.mark.parametrize(("package", "engine"), [("distributed", NOWHERE), ("joblib", Engine(processes=2))])
def test_a_missing_package_is_named(
    package: str, engine: Engine, use: Callable[[Engine], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if (use, package) == (on_joblib, "joblib"):
        use(engine)  # processes need nothing for `fit`
        return
    with pytest.raises(InputError, match=f"The package {package} is not installed, but `compute` needs it; add it to"):
        use(engine)


def test_one_process_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("joblib", "distributed"):
        monkeypatch.setitem(sys.modules, package, None)
    assert list(run_each(LOCAL, abs, [-1, 2])) == [1, 2]
    on_joblib(LOCAL)


@pytest.mark.parametrize("use", [each, on_joblib])
def test_a_scheduler_that_does_not_answer_is_named(
    use: Callable[[Engine], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "CONNECT_SECONDS", 0.1)
    with pytest.raises(
        InputError, match=r"^No Dask scheduler answers at tcp://127.0.0.1:9 \(.*\); start `dask scheduler`"
    ):
        use(NOWHERE)


def test_a_cluster_without_workers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "WORKER_SECONDS", 0.1)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
        pytest.raises(InputError, match=r"has no workers; start some with `dask worker tcp://127.0.0.1:[0-9]+`"),
    ):
        each(Engine(address=cluster.scheduler_address))


def test_a_killed_process_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^A process was killed, .* lower `compute.processes`"):
        list(run_each(Engine(processes=2), kill, [1, 2]))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TerminatedWorkerError("killed"), "A process was killed"),
        (distributed.KilledWorker("part", None, 3), "Each Dask worker that got the same part was lost"),  # type: ignore[arg-type]
        (FutureCancelledError("part", "scheduler-connection-lost"), "The Dask scheduler was lost"),  # type: ignore[no-untyped-call]
    ],
    ids=lambda each: type(each).__name__,
)
def test_lost_workers_and_schedulers_are_errors_of_one_sentence(error: Exception, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}.* this again.$"), compute._errors(NOWHERE):
        raise error


def test_modules_that_workers_lack_are_named() -> None:
    sentence = r"workers at tcp://127.0.0.1:9 lack the module slipway; start them with"
    with pytest.raises(InputError, match=sentence), compute._errors(NOWHERE):
        raise ModuleNotFoundError("No module named 'slipway'", name="slipway")
