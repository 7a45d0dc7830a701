"""Processes and a Dask cluster write the same bytes as one process, also if a worker is lost within a part."""

import shutil
import signal
from collections.abc import Callable, Generator
from datetime import date
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor

from slipway.artifacts import (
    CHECKED,
    EVALUATION,
    PARAMS,
    QUARANTINE,
    SCORES,
    VALIDATED,
    VALIDATION,
    Holdout,
    Release,
)
from slipway.bundle import load_bundle
from slipway.config import load_params
from slipway.contract import load_model
from slipway.errors import InputError
from slipway.integrations import compute
from slipway.integrations.batch_storage import BatchInput
from slipway.integrations.compute import Engine, joblib_on
from slipway.integrations.label_source import LabelSource
from slipway.integrations.log_store import LogStore
from slipway.monitoring import join_log
from slipway.pipeline import deliveries, evaluate, parallel_checks, split, train, validate
from slipway.pipeline.decay import AtRelease
from slipway.pipeline.row_ids import hash_rows
from slipway.scoring import score
from slipway.scoring.__main__ import main
from tests.slipway import dask_cluster
from tests.slipway.conftest import TODAY, Result, edit
from tests.slipway.monitoring.test_join_log import log_and_ship
from tests.slipway.pipeline import test_determinism
from tests.slipway.pipeline.test_delivery_cache import faulty
from tests.slipway.scoring.conftest import files
from tests.slipway.serving import odd
from tests.slipway.serving.test_prediction_log import marked

ROWS = (3, 1, 7, 2, 5, 4, 6, 8)
KILL_ONCE = """\
import os, signal
from pathlib import Path
from slipway.pipeline import deliveries
from slipway.monitoring import join_file
from slipway.pipeline.typed_rows import typed_rows
from slipway.scoring import score
from slipway.scoring.score_rows import score_rows

def kill_once(name):
    try:
        Path(MARKER + name).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

def score_and_kill(model, block):
    scored = score_rows(model, block)
    if len(block.rows) == 7:  # only one part has this number of rows
        kill_once("score")
    return scored

def check_and_kill(batch, model):
    kill_once("check")
    return typed_rows(batch, model)

if not hasattr(join_file, "original"):  # Dask may load this file twice
    join_file.original = join_file._write

def write_and_kill(path, *arguments):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    kill_once("join")
    join_file.original(path, *arguments)

score.score_rows = score_and_kill
join_file._write = write_and_kill
deliveries.typed_rows = check_and_kill
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[dask_cluster.Cluster, None, None]:
    """Four workers. The first that scores the part with 7 rows dies.

    So does the first that checks a delivery, and the first that has joined a file of a log.
    """
    folder = tmp_path_factory.mktemp("dask")
    (folder / "kill_once.py").write_text(f"MARKER = {str(folder / 'killed')!r}\n{KILL_ONCE}")
    with dask_cluster.running(folder, folder / "kill_once.py", number=4) as found:
        yield found


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name in ("bundle", "in"):
        (tmp_path / name).mkdir()
    odd.write_bundle(tmp_path / "bundle")
    for number, rows in enumerate(ROWS):
        pd.DataFrame([odd.ROW] * rows).to_csv(tmp_path / f"in/{number}.csv", index=False)
    (tmp_path / "in/bad.csv").write_text("rooms\n1\n")
    return tmp_path / "bundle"


def run(bundle: Path, output: str, engine: Engine = compute.LOCAL) -> tuple[list[str], dict[str, bytes]]:
    """Return the parts in the order in which they were reported, and the files of the output."""
    parts: list[str] = []
    folder = bundle.parent
    score.run(bundle, str(folder / "in"), str(folder / output), (), lambda part, _: parts.append(part), engine)
    return parts, files(folder / output)


def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(bundle: Path, cluster: dask_cluster.Cluster) -> None:
    assert cluster.exit_codes() == [None] * 4
    expected = run(bundle, "local")
    assert run(bundle, "dask", Engine(address=cluster.address)) == expected
    assert sorted(cluster.exit_codes(), key=str) == [-signal.SIGKILL, None, None, None]
    (bundle.parent / "dask/answers/2.csv.parquet").unlink()
    assert run(bundle, "dask", Engine(address=cluster.address)) == expected


def test_several_processes_write_the_same_bytes(bundle: Path) -> None:
    assert run(bundle, "two", Engine(processes=2)) == run(bundle, "one")


def test_another_bundle_on_a_worker_is_refused(bundle: Path) -> None:
    source, output = str(bundle.parent / "in"), str(bundle.parent / "out")
    (part, *_) = BatchInput(source).parts()
    with pytest.raises(
        InputError, match=f"A worker has the bundle .* at {bundle}, not {'0' * 32}; copy the latter to it"
    ):
        score._score_part(bundle, "0" * 32, source, output, (), part)
    assert not files(bundle.parent / "out")


@pytest.mark.usefixtures("workplace")
def test_fit_on_a_cluster_gives_the_same_bundle(cluster: dask_cluster.Cluster) -> None:
    backends = []

    def fit(features: pd.DataFrame, target: "pd.Series[float]", _: Any, seed: int) -> Any:
        backends.append(type(joblib.parallel.get_active_backend()[0]).__name__)
        return RandomForestRegressor(4, max_depth=3, n_jobs=2, random_state=seed).fit(features, target)

    with joblib_on(Engine(address=cluster.address)):
        there = test_determinism.run(fit, check_determinism=False)
    here = test_determinism.run(fit, check_determinism=False)
    assert there == here
    assert backends == ["DaskDistributedBackend", "LokyBackend"]


def test_the_pipeline_on_a_cluster_that_loses_a_worker_writes_the_same_bytes(
    workplace: Path, cluster: dask_cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(workplace / "params.yaml", "max_iter: 30", "max_iter: 3")
    faulty(workplace)
    params, model, engine = load_params(PARAMS), load_model(), Engine(address=cluster.address)
    monkeypatch.setattr(parallel_checks, "TASK_BYTES", 1)
    monkeypatch.setattr(evaluate, "SCORED_ROWS", 40)
    validate.run(params, model, TODAY)
    split.run(params, model)
    train.run(params, model)
    evaluate.run(params, model)
    files_here = (VALIDATED, QUARANTINE, VALIDATION, EVALUATION, SCORES)
    expected = [path.read_bytes() for path in files_here]
    shutil.rmtree(CHECKED)
    for path in files_here:
        path.unlink()
    killed = cluster.exit_codes().count(-signal.SIGKILL)
    monkeypatch.setattr(deliveries, "typed_rows", None)  # so that only workers can check and predict
    validate.run(params, model, TODAY, engine)
    assert cluster.exit_codes().count(-signal.SIGKILL) == killed + 1
    monkeypatch.setattr(evaluate, "_predict", None)
    evaluate.run(params, model, engine)
    assert [path.read_bytes() for path in files_here] == expected


@pytest.mark.usefixtures("workplace")
def test_a_log_is_joined_to_the_same_bytes_on_every_engine(
    bundle: Path, cluster: dask_cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = bundle.parent / "log"
    served = marked(bundle, bundle.parent / "served")
    with monkeypatch.context() as patch:
        log_and_ship(served, log, [(day, odd.ROW | {odd.AREA: day / 8}) for day in range(6)], patch)
    today = date(2026, 1, 1)
    labels = {"request_id": [f"r-{i}" for i in range(6)], "price": range(1_000, 1_006), "known_at": str(today)}
    pd.DataFrame(labels).to_csv(bundle.parent / "labels.csv", index=False)  # the sample's KEY is another one
    release = Release(champion="", loss="", value=1.0, holdout=Holdout(rows=1, first=None, last=None))
    champion = AtRelease(release, load_bundle(served), None, hash_rows([pd.Series([0.25])]))
    params, store = load_params(PARAMS), LogStore(str(log))
    source = LabelSource(str(bundle.parent / "labels.csv"))
    killed = cluster.exit_codes().count(-signal.SIGKILL)
    found = []
    for engine in (compute.LOCAL, Engine(processes=2), Engine(address=cluster.address)):
        given = {"bundle": champion.bundle, "champion": champion, "engine": engine}
        live = join_log.run(params, load_model(), today, store, source, **given)
        assert (live.counts.joined, live.skew[0].rows, live.skew[0].different) == (6, 6, 0)
        found.append((files(join_log.JOINED), join_log.LIVE.read_bytes()))
    assert len(found[0][0]) == 6
    assert found[1:] == found[:1] * 2
    assert cluster.exit_codes().count(-signal.SIGKILL) == killed + 1


class Odd(Exception):
    """An exception that can be pickled, but not read again."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")


def odd_work(row: int) -> None:
    raise Odd(row, "is odd")


def test_an_exception_that_cannot_be_sent_becomes_one_sentence(cluster: dask_cluster.Cluster) -> None:
    with pytest.raises(InputError, match=r"^The work of a process failed \(Odd\); remove `compute`"):
        list(compute.run_each(Engine(address=cluster.address), odd_work, [3]))


def test_another_bundle_on_a_worker_of_evaluate_is_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match=f"A worker has the bundle .* at {bundle}, not {'0' * 32}; copy the latter"):
        evaluate._predict_there(bundle, "0" * 32, pd.DataFrame())


def test_a_faulty_delivery_is_the_same_error_on_every_engine(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_checks, "TASK_BYTES", 1)
    monkeypatch.setattr(parallel_checks, "run_each", lambda _, work, items: map(work, items))
    path = workplace / "data/1997A.csv"
    path.write_text(path.read_text().replace("sale_date,price", "sale_date,cost"))
    sentences = []
    for engine in (compute.LOCAL, Engine(processes=2)):
        with pytest.raises(InputError) as error:
            validate.run(load_params(PARAMS), load_model(), TODAY, engine)
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1]
    assert sentences[0].startswith("data/1997A.csv ")


@pytest.mark.usefixtures("workplace")
def test_the_verbs_use_the_engine_of_params_yaml(
    bundle: Path, slipway: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "CONNECT_SECONDS", 0.1)
    with Path("params.yaml").open("a") as params:
        params.write("compute: {engine: dask, address: 'tcp://127.0.0.1:9'}\n")
    monkeypatch.setattr(parallel_checks, "TASK_BYTES", 1)
    scoring = ["score", str(bundle.parent / "in"), str(bundle.parent / "out"), "--bundle", str(bundle)]
    for verb in (scoring, ["train"], ["validate"]):
        done = slipway(*verb)
        assert done.code == 2
        assert "No Dask scheduler answers at tcp://127.0.0.1:9" in done.err


def test_the_command_of_the_image_uses_the_cluster(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compute, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    command = [bundle, bundle.parent / "in", bundle.parent / "out", "--dask", "tcp://127.0.0.1:9"]
    monkeypatch.setattr("sys.argv", ["slipway.scoring", *map(str, command)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
