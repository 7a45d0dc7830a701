"""Compare Slipway with other model servers on heavy models: `python -m benchmarks.serving.heavy_alternatives`.

The models are an MLP and the encoder from `heavy_models`. All servers run the same graph with ONNX Runtime on one
thread, and use their own batching. They have one core, and receive single records over 16 keep-alive connections. They
take turns in several rounds, and the numbers are medians. `benchmarks.serving.alternatives --install` creates the
environments. A server that cannot be started is listed in the output. Triton does not start with some builds of Python,
so `--install` has the option `--triton-python`.

Slipway runs twice. With `SLIPWAY_SHARE_RUNS=on`, predictions can differ by up to 1e-4, depending on the number of rows
in a run. The same is true for the other servers. With Slipway's default, predictions equal those from single runs, bit
by bit.

Required: with `on`, Slipway answers the most requests per second of CPU time.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.scratch import REPOSITORY, console, exit_with, require
from benchmarks.serving.closed_loop import Load, load, median, write_bodies
from benchmarks.serving.heavy_models import BUNDLES, bodies
from benchmarks.serving.processes import Server, exchange, start, start_slipway, stopping, take_load_core
from benchmarks.serving.records import encode
from slipway.bundle import GOLDEN, MODEL, Golden
from slipway.errors import SlipwayError
from slipway.integrations.ports import free_port

FILES = Path(__file__).with_name("alternatives")
MODELS = ("MLP 2048-2048", "encoder, 6 layers")
SLIPWAY = "Slipway"
WARM_UP = 1.0  # seconds
SAME_WITHIN = 1e-4
Record = dict[str, float]


@dataclass(frozen=True)
class Contestant:
    """A server: its command without the port, how to encode a request, and how to read the prediction."""

    name: str
    path: str
    start: Callable[[Path, Path, Path, tuple[str, bytes]], Server]
    body: Callable[[Record], Any]
    answer: Callable[[Any], float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of the load on each server in a round")
    parser.add_argument(
        "--environments", type=Path, default=REPOSITORY / "build/alternatives", help="folder of the environments"
    )
    parser.add_argument("--only", action="append", choices=MODELS, help="measure only this model")
    arguments = parser.parse_args()
    if not arguments.environments.is_dir():
        raise SlipwayError(
            f"{arguments.environments} is missing; run `python -m benchmarks.serving.alternatives --install`."
        )
    take_load_core()
    requirements: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only or MODELS:
            bundle = BUNDLES[name](Path(folder) / name)
            results, missing = _measure(Path(folder), bundle, arguments)
            console.print(_table(name, results))
            for each, why in missing.items():
                console.print(f"{each} is missing: {why}", markup=False)
            others = {
                each: median(loads).per_cpu_second for each, loads in results.items() if not each.startswith(SLIPWAY)
            }
            ours = median(results[SLIPWAY]).per_cpu_second
            requirements[f"{name}: Slipway answers the most requests per CPU-second"] = bool(others) and ours >= max(
                others.values()
            )
    return require(requirements)


def _measure(
    scratch: Path, bundle: Path, arguments: argparse.Namespace
) -> tuple[dict[str, list[Load]], dict[str, str]]:
    """Return the loads of each server, and the reason for each server that does not run."""
    golden = Golden.model_validate_json((bundle / GOLDEN).read_bytes())
    first: Record = {name: float(value or 0) for name, value in golden.rows[0].items()}
    sent = [first, *bodies(len(first), 255)]
    results: dict[str, list[Load]] = {}
    missing: dict[str, str] = {}
    for number in range(arguments.rounds):
        for each in CONTESTANTS[:: 1 if number % 2 else -1]:
            if each.name in missing:
                continue
            file = write_bodies(scratch / "bodies.txt", [encode(each.body(record)) for record in sent])
            question = (each.path, encode(each.body(first)))
            try:
                with stopping(each.start(arguments.environments, scratch, bundle, question)) as server:
                    given = each.answer(json.loads(exchange(server.port, *question)[1]))
                    _check(given, golden.predictions[0][0])
                    load(server, each.path, file, seconds=WARM_UP)
                    results.setdefault(each.name, []).append(load(server, each.path, file, seconds=arguments.seconds))
            except (SlipwayError, OSError) as error:
                missing[each.name] = str(error)
    return results, missing


def _check(given: float, expected: float) -> None:
    if abs(given - expected) > SAME_WITHIN * max(1, abs(expected)):
        raise SlipwayError(f"It predicts {given} instead of {expected}.")


def _table(title: str, results: dict[str, list[Load]]) -> Table:
    table = Table(
        title, "requests/s", "per CPU-second", "p50, ms", "p99, ms", "not 200", box=None, padding=(0, 2, 0, 0)
    )
    for name, loads in results.items():
        each = median(loads)
        numbers = (f"{each.rate:,.0f}", f"{each.per_cpu_second:,.0f}", f"{each.p50:.1f}", f"{each.p99:.1f}")
        table.add_row(name, *numbers, f"{each.bad:,}")
    return table


def _slipway(share_runs: str) -> Callable[[Path, Path, Path, tuple[str, bytes]], Server]:
    def start_it(_: Path, scratch: Path, bundle: Path, question: tuple[str, bytes]) -> Server:
        return start_slipway(scratch, free_port(), question=question, bundle=bundle, share_runs=share_runs)

    return start_it


def _other(name: str, *command: str) -> Callable[[Path, Path, Path, tuple[str, bytes]], Server]:
    """Return a function that starts a server from an environment. `PORT` in its command is replaced by the port."""

    def start_other(environments: Path, scratch: Path, bundle: Path, question: tuple[str, bytes]) -> Server:
        port, programs = free_port(), environments / name / "bin"
        if name == "mlserver":
            _configure_mlserver(scratch, port)
        variables = {
            "GRAPH": str(bundle / MODEL),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(FILES),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "BENTOML_HOME": str(scratch),
            "BENTOML_DO_NOT_TRACK": "True",
            "DO_NOT_TRACK": "1",
        }
        words: Sequence[str] = [str(port) if word == "PORT" else word for word in command]
        words = [str(scratch / name) if word == "FOLDER" else word for word in words]
        log = scratch / f"{name}.log"
        return start([programs / words[0], *words[1:]], port, log, question, environment=variables, at=FILES)

    return start_other


def _configure_mlserver(scratch: Path, port: int) -> None:
    folder = scratch / "mlserver"
    folder.mkdir(exist_ok=True)
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    model = {"name": "model", "implementation": "mlserver_onnx.Model", "max_batch_size": 16, "max_batch_time": 0.001}
    (folder / "settings.json").write_text(
        json.dumps({"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports})
    )
    (folder / "model-settings.json").write_text(json.dumps(model))


def _tensor(record: Record) -> dict[str, Any]:
    data = [*record.values()]
    return {"inputs": [{"name": "numbers", "shape": [1, len(data)], "datatype": "FP32", "data": data}]}


BENTOML = (
    "bentoml",
    "serve",
    "bentoml_onnx:Model",
    "--host",
    "127.0.0.1",
    "--port",
    "PORT",
    "--working-dir",
    str(FILES),
)
CONTESTANTS = (
    *(
        Contestant(name, "/predict", _slipway(sharing), lambda record: record, lambda said: said["prediction"])
        for name, sharing in {SLIPWAY: "on", f"{SLIPWAY}, equal bits": "auto"}.items()
    ),
    Contestant(
        "LitServe, batching",
        "/predict",
        _other("litserve", "python", "litserve_onnx.py", "PORT"),
        lambda record: record,
        lambda said: said["prediction"],
    ),
    Contestant(
        "BentoML, batching",
        "/predict",
        _other("bentoml", *BENTOML),
        lambda record: {"records": [record]},
        lambda said: said[0],
    ),
    Contestant(
        "MLServer, batching",
        "/v2/models/model/infer",
        _other("mlserver", "mlserver", "start", "FOLDER"),
        _tensor,
        lambda said: said["outputs"][0]["data"][0],
    ),
    Contestant(
        "Triton, batching",
        "/v2/models/model/infer",
        _other("pytriton", "python", "pytriton_onnx.py", "PORT", "FOLDER"),
        _tensor,
        lambda said: said["outputs"][0]["data"][0],
    ),
)


if __name__ == "__main__":
    exit_with(main)
