"""Compare Slipway with other model servers: `python -m benchmarks.serving.alternatives`, on Linux, with wrk.

The benchmark fits the pipeline of src/model on the champion's training data, in a scratch clone of the last commit. It
deploys the pipeline to each server as the documentation of that server shows. Each server has one core and one worker,
uses its own batching if it has any, and writes no access log. The server code and the tested versions are in the folder
`alternatives` next to this script. `--install` creates an environment for each server. Each prediction may differ from
the champion's by at most 0.01%.

Every server receives the same records in its own format, one record per request, over 16 keep-alive connections. MLflow
and MLServer cannot run our code before the model, so they receive each date as the number of days that the pipeline
reads. The servers take turns on the core in several rounds, each server is started again for its turn, and each number
is the median of the rounds. A cold start is the time from the command to the first answer, with warm disk caches.
Memory is measured after the load and includes all processes of a server. Shared memory counts once.

Required: Slipway is at least 100 times as fast as `mlflow models serve`, and at least 10 times as fast as the fastest
server with batching. Each comparison computes the ratio of requests per second and the ratio of requests per
CPU-second, and uses the lower ratio.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
from rich.table import Table
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from threadpoolctl import threadpool_limits

from benchmarks.scratch import BIN, REPOSITORY, clone, console, exit_with, require
from benchmarks.serving.closed_loop import Load, load, median, write_bodies
from benchmarks.serving.processes import (
    Server,
    exchange,
    start,
    start_ceiling,
    start_slipway,
    stopping,
    take_load_core,
)
from benchmarks.serving.records import Record, encode, read_records, read_schema, tensors, with_days
from slipway import artifacts
from slipway.bundle import Schema
from slipway.config import load_params
from slipway.contract import load_model
from slipway.errors import SlipwayError
from slipway.integrations import process
from slipway.integrations.ports import free_port
from slipway.pipeline.parquet import read_table
from slipway.pipeline.tensors import describe, features

FILES = Path(__file__).with_name("alternatives")
ENVIRONMENTS = REPOSITORY / "build" / "alternatives"
WARM_UP = 2.0  # seconds
SAME_WITHIN = 1e-4

SLIPWAY = "Slipway"
MLFLOW = "mlflow models serve"
TRITON = "pytriton"
"""The environment that only `benchmarks.serving.heavy_alternatives` uses."""
LEAST_OF_MLFLOW = 100.0
LEAST_OF_BATCHING = 10.0


@dataclass(frozen=True)
class Kit:
    """The files in the scratch folder that the servers use."""

    folder: Path
    pipeline: Path
    graph: Path
    example: Path
    """File with a record in the form in which a client sends it."""
    days: Path
    """File with the same record, but with dates as numbers of days."""


@dataclass(frozen=True)
class Contestant:
    """A server: how to start it, how to encode a request, and how to read the prediction from an answer."""

    name: str
    start: Callable[[Kit, int, tuple[str, bytes]], Server]
    path: str
    body: Callable[[Record, Schema], Any]
    answer: Callable[[Any], float | None]
    environment: str | None = None
    """The name of its requirements file without suffix, or None for the current environment."""
    batching: bool = False


@dataclass
class Result:
    """The measurements of one server."""

    loads: list[Load] = field(default_factory=list)
    seconds_to_ready: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)


def main() -> int:
    arguments = _arguments()
    problems = _installed(arguments.install, arguments.triton_python)
    take_load_core()
    results: dict[str, Result] = {each.name: Result() for each in CONTESTANTS if each.environment not in problems}
    missing = {each.name: problems[each.environment] for each in CONTESTANTS if each.environment in problems}
    with tempfile.TemporaryDirectory() as folder:
        kit, records = _kit(Path(folder)), read_records(256)
        bodies = {each.name: _bodies(each, records, kit) for each in CONTESTANTS}
        for number in range(arguments.rounds):
            turn = number % len(CONTESTANTS)
            for each in (*CONTESTANTS[turn:], *CONTESTANTS[:turn]):
                if each.name in missing:
                    continue
                try:
                    _take_turn(each, results[each.name], kit, bodies[each.name], arguments.seconds)
                except (SlipwayError, OSError) as error:
                    missing[each.name] = str(error)
                    del results[each.name]
            console.print(f"[dim]round {number + 1} of {arguments.rounds}[/]")
    console.print(_table(results))
    for name, why in missing.items():
        console.print(f"\n{name} is missing: {why}", markup=False)
    return require(_requirements(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="create the environments, in build/alternatives")
    parser.add_argument(
        "--triton-python",
        default=sys.executable,
        help="Python of the environment for Triton, which heavy_alternatives uses. Some builds of Python do not work",
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of the load on each server in a round")
    return parser.parse_args()


def _installed(install: bool, triton_python: str) -> dict[str | None, str]:
    """Return the missing environments, each with the reason. With `install`, create missing environments first."""
    problems: dict[str | None, str] = {}
    for name in sorted({TRITON} | {each.environment for each in CONTESTANTS if each.environment}):
        folder, requirements = ENVIRONMENTS / name, FILES / f"{name}.txt"
        done = folder / "requirements.txt"
        if done.is_file() and done.read_bytes() == requirements.read_bytes():
            continue
        if not install:
            problems[name] = "it is not installed; run with `--install`."
            continue
        console.print(f"[dim]installing {name}[/]")
        uv = str(BIN / "uv") if (BIN / "uv").exists() else "uv"
        python = folder / "bin" / "python"
        steps: list[list[str | Path]] = [
            [uv, "venv", "--quiet", "--clear", "--python", triton_python if name == TRITON else sys.executable, folder],
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-r", requirements],
        ]
        for step in steps:
            result = subprocess.run(step, capture_output=True, text=True, check=False)
            if result.returncode:
                problems[name] = f"it cannot be installed here: {result.stderr.strip()}"
                break
        else:
            shutil.copyfile(requirements, done)
    return problems


def _kit(folder: Path) -> Kit:
    """Fit the pipeline on the champion's training data, and save it for all servers."""
    repository = clone(folder / "repository", "data.dvc", "champion.dvc")
    for stage in ("validate", "split"):
        process.run("slipway", stage, at=repository)
    params, model = load_params(repository / artifacts.PARAMS), load_model()
    if params.task.kind != "regression":
        raise SlipwayError("This benchmark supports only a regression; `task.kind` in params.yaml is another.")
    schema = describe(model, params.task.kind, None)
    training = read_table(repository / artifacts.TRAINING)
    with threadpool_limits(params.train.threads):
        frame = features(training, schema)
        fitted = model.fit(frame, training[model.TARGET], params.train.settings, params.train.seed)
    kit = Kit(
        folder, folder / "pipeline.joblib", folder / "columns.onnx", folder / "example.json", folder / "days.json"
    )
    joblib.dump(fitted, kit.pipeline)
    types = [
        (each.name, StringTensorType([None, 1]) if each.type == "category" else FloatTensorType([None, 1]))
        for each in schema.columns
    ]
    kit.graph.write_bytes(convert_sklearn(fitted, initial_types=types).SerializeToString())
    (example,) = read_records(1)
    kit.example.write_bytes(encode(example))
    kit.days.write_bytes(encode(with_days(example, schema)))
    return kit


def _bodies(each: Contestant, records: list[Record], kit: Kit) -> tuple[Path, bytes]:
    """Write the request bodies for a server to a file, and return the file and the first body."""
    bodies = [encode(each.body(record, read_schema())) for record in records]
    file = kit.folder / f"{''.join(filter(str.isalnum, each.name))}.txt"
    return write_bodies(file, bodies), bodies[0]


def _take_turn(each: Contestant, result: Result, kit: Kit, bodies: tuple[Path, bytes], seconds: float) -> None:
    """Start a server, compare its prediction with the champion's, load it, and stop it."""
    file, first = bodies
    with stopping(each.start(kit, free_port(), (each.path, first))) as server:
        result.seconds_to_ready.append(server.seconds_to_ready)
        given = each.answer(json.loads(exchange(server.port, each.path, first)[1]))
        expected = _champions_answer(kit)
        if given is not None and abs(given - expected) > SAME_WITHIN * abs(expected):
            raise SlipwayError(f"It predicts {given}, but the champion predicts {expected}.")
        load(server, each.path, file, seconds=WARM_UP)
        result.loads.append(load(server, each.path, file, seconds=seconds))
        result.megabytes.append(server.resident_megabytes())


def _champions_answer(kit: Kit) -> float:
    from slipway.bundle import load_bundle
    from slipway.serving.problems import pointer
    from slipway.serving.records import Records

    bundle = load_bundle(REPOSITORY / artifacts.CHAMPION)
    tensors = Records(bundle.schema, 1).from_rows([json.loads(kit.example.read_bytes())], pointer)
    return float(bundle.predict(tensors)[0, 0])


def _table(results: dict[str, Result]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    columns = ("requests/s", "per CPU-second", "p50, ms", "p99, ms", "not 200", "cold start, s", "MB")
    for title in (*columns, "Slipway is\nx times as fast"):
        table.add_column(title, justify="right")
    for name, result in results.items():
        each = median(result.loads)
        times = _times(results, name) if SLIPWAY in results else float("nan")
        table.add_row(
            name,
            f"{each.rate:,.0f}",
            f"{each.per_cpu_second:,.0f}",
            f"{each.p50:.1f}",
            f"{each.p99:.1f}",
            f"{each.bad:,}",
            f"{statistics.median(result.seconds_to_ready):.1f}",
            f"{statistics.median(result.megabytes):.0f}",
            f"{times:,.1f}",
        )
    return table


def _times(results: dict[str, Result], name: str) -> float:
    """Return how many times as fast Slipway is: the lower of the two ratios, per second and per CPU-second."""
    ours, theirs = median(results[SLIPWAY].loads), median(results[name].loads)
    return min(ours.rate / theirs.rate, ours.per_cpu_second / theirs.per_cpu_second)


def _requirements(results: dict[str, Result]) -> dict[str, bool]:
    if SLIPWAY not in results:
        return {"Slipway itself runs": False}
    requirements = {}
    if MLFLOW in results:
        times = _times(results, MLFLOW)
        requirements[f"at least {LEAST_OF_MLFLOW:g} times as fast as {MLFLOW} ({times:.0f})"] = times >= LEAST_OF_MLFLOW
    batching = [each.name for each in CONTESTANTS if each.batching and each.name in results]
    if batching:
        best = min(batching, key=lambda name: _times(results, name))
        times = _times(results, best)
        requirement = f"at least {LEAST_OF_BATCHING:g} times as fast as the fastest with batching, {best} ({times:.1f})"
        requirements[requirement] = times >= LEAST_OF_BATCHING
    return requirements


def _program(environment: str, program: str) -> Path:
    return ENVIRONMENTS / environment / "bin" / program


def _run(kit: Kit, port: int, question: tuple[str, bytes], command: Sequence[str | Path], **environment: str) -> Server:
    """Start a server in the folder `alternatives`, with one thread and without telemetry."""
    silent = {"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}
    inputs = {"PIPELINE": str(kit.pipeline), "GRAPH": str(kit.graph), "EXAMPLE": str(kit.example)}
    path = {"PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(FILES)}
    given = {"OMP_NUM_THREADS": "1"} | silent | inputs | path | environment
    return start(list(command), port, kit.folder / f"{port}.log", question, environment=given, at=FILES)


def _slipway(kit: Kit, port: int, question: tuple[str, bytes]) -> Server:
    return start_slipway(kit.folder, port, question=question)


def _ceiling(kit: Kit, port: int, question: tuple[str, bytes]) -> Server:  # noqa: ARG001
    return start_ceiling(kit.folder, port)


def _mlflow(kit: Kit, port: int, question: tuple[str, bytes]) -> Server:
    saved = kit.folder / "mlflow"
    if not saved.exists():
        saving = [_program("mlflow", "python"), FILES / "save_for_mlflow.py", kit.pipeline, kit.days, saved]
        done = subprocess.run(saving, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SlipwayError(f"The model cannot be saved for MLflow: {done.stderr.strip()}")
    command = [_program("mlflow", "mlflow"), "models", "serve", "--model-uri", saved, "--port", str(port)]
    return _run(kit, port, question, [*command, "--env-manager", "local", "--workers", "1"])


def _mlserver(kit: Kit, port: int, question: tuple[str, bytes]) -> Server:
    folder = kit.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    # Parallel workers are off: they are additional processes next to the HTTP server, and only cost time on one core.
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    model = {
        "name": "model",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(kit.pipeline), "content_type": "pd"},
        "max_batch_size": 16,
        "max_batch_time": 0.001,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return _run(kit, port, question, [_program("mlserver", "mlserver"), "start", folder])


def _bentoml(kit: Kit, port: int, question: tuple[str, bytes]) -> Server:
    command = [_program("bentoml", "bentoml"), "serve", "bentoml_service:Model", "--host", "127.0.0.1"]
    return _run(
        kit, port, question, [*command, "--port", str(port), "--working-dir", FILES], BENTOML_HOME=str(kit.folder)
    )


def _litserve(kit: Kit, port: int, question: tuple[str, bytes]) -> Server:
    return _run(kit, port, question, [_program("litserve", "python"), "litserve_server.py", str(port)])


def _fastapi(application: str) -> Callable[[Kit, int, tuple[str, bytes]], Server]:
    def start_uvicorn(kit: Kit, port: int, question: tuple[str, bytes]) -> Server:
        command = [_program("fastapi", "uvicorn"), "--port", str(port), "--no-access-log", application]
        return _run(kit, port, question, command)

    return start_uvicorn


def _unchanged(record: Record, schema: Schema) -> Record:  # noqa: ARG001
    return record


def _for_mlserver(record: Record, schema: Schema) -> dict[str, Any]:
    named = {each["name"]: each for each in tensors(with_days(record, schema), schema)}
    for name, value in with_days(record, schema).items():
        if isinstance(value, str):
            named[name]["parameters"] = {"content_type": "str"}
        else:
            named[name]["datatype"] = "FP32"
    return {"parameters": {"content_type": "pd"}, "inputs": list(named.values())}


CONTESTANTS = (
    Contestant("a constant", _ceiling, "/predict", _unchanged, lambda _: None),
    Contestant(SLIPWAY, _slipway, "/predict", _unchanged, lambda said: said["prediction"]),
    Contestant(
        "FastAPI, ONNX Runtime",
        _fastapi("fastapi_onnx:app"),
        "/predict",
        _unchanged,
        lambda said: said["prediction"],
        "fastapi",
    ),
    Contestant(
        "FastAPI, pandas",
        _fastapi("fastapi_pandas:app"),
        "/predict",
        _unchanged,
        lambda said: said["prediction"],
        "fastapi",
    ),
    Contestant(
        MLFLOW,
        _mlflow,
        "/invocations",
        lambda record, schema: {"dataframe_records": [with_days(record, schema)]},
        lambda said: said["predictions"][0],
        "mlflow",
    ),
    Contestant(
        "MLServer, batching",
        _mlserver,
        "/v2/models/model/infer",
        _for_mlserver,
        lambda said: said["outputs"][0]["data"][0],
        "mlserver",
        batching=True,
    ),
    Contestant(
        "BentoML, batching",
        _bentoml,
        "/predict",
        lambda record, _: {"records": [record]},
        lambda said: said[0],
        "bentoml",
        batching=True,
    ),
    Contestant(
        "LitServe, batching",
        _litserve,
        "/predict",
        _unchanged,
        lambda said: said["prediction"],
        "litserve",
        batching=True,
    ),
)


if __name__ == "__main__":
    exit_with(main)
