"""Post bodies that the server must refuse, and print its memory: `python -m benchmarks.serving.hostile`, on Linux.

The model reads a number, a text, two vectors and an image. The bodies use the three protocols. Most faults come from
tests/slipway/serving/test_arrays.py: decompression bombs, truncated and mislabelled images, invalid base64, and vectors
with a wrong length or wrong numbers. Others are texts of up to 10 MB, wrong shapes, and bodies that are not JSON. The
memory at the end is compared with the memory after the first twentieth of the bodies, when each code path has run.
At the end, the server must predict the golden rows as at the start.
"""

import argparse
import http.client
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from pydantic import BaseModel
from rich.table import Table

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.processes import (
    Server,
    exchange,
    start_slipway,
    status_of,
    stopping,
    take_load_core,
)
from slipway.bundle import GOLDEN, MODEL, REFERENCE, SCHEMA, Column, Golden, Reference, Schema
from slipway.errors import SlipwayError
from slipway.integrations.ports import free_port

Request = tuple[str, bytes]
"""The path and the body of a request."""

BODIES = 100_000
MAX_GROWTH = 1.05
"""Maximum ratio of the resident memory at the end to the resident memory after the first bodies."""
MAX_SECONDS = 3_600.0
"""Maximum duration. Bodies that are left are not posted, and the requirement about their number fails."""
PREDICT, INVOCATIONS, INFER = "/predict", "/invocations", "/v2/models/model/infer"
TEXT, LONGEST = "note", 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=BODIES, help="number of bodies to post")
    count: int = parser.parse_args().bodies
    with tempfile.TemporaryDirectory() as folder:
        bundle, row, requests = _hostile(Path(folder))
        take_load_core()
        with stopping(start_slipway(Path(folder), free_port(), bundle=bundle)) as server:
            first_answers = _golden(server, row)
            began = time.monotonic()
            memory, statuses = _post(server, requests, count)
            seconds = time.monotonic() - began
            last_answers = _golden(server, row)
            ready = status_of(server.port, "/readyz", None)
    table = Table("bodies", "resident MB")
    for posted, megabytes in memory.items():
        table.add_row(f"{posted:,}", f"{megabytes:.1f}")
    console.print(table)
    posted = sum(statuses.values())
    console.print(
        f"{posted:,} bodies of {len(requests)} kinds in {seconds:.0f} s; statuses: {dict(sorted(statuses.items()))}"
    )
    first, *_, last = list(memory.values())[1:]
    return require(
        {
            f"{count:,} bodies in {MAX_SECONDS:,.0f} s ({posted:,})": posted == count,
            "every body is refused with 4xx": all(400 <= status < 500 for status in statuses),
            f"memory grows by at most {MAX_GROWTH - 1:.0%} (from {first:.1f} to {last:.1f} MB)": last
            <= MAX_GROWTH * first,
            "the server is ready, and predicts the golden rows as at the start": (ready, last_answers)
            == (200, first_answers),
        }
    )


def _hostile(folder: Path) -> tuple[Path, dict[str, Any], list[Request]]:
    """Write a bundle with a text, vectors and an image. Return it, its golden row, and requests to refuse."""
    try:
        from tests.slipway.serving.arrays import ROW, write_bundle
        from tests.slipway.serving.test_arrays import HOSTILE, tensors
    except ModuleNotFoundError:
        raise SlipwayError("tests/slipway/ is missing; run this benchmark in a clone of the template.") from None
    row = ROW | {TEXT: "a text"}
    bundle = folder / "bundle"
    bundle.mkdir()
    _add_text(write_bundle(bundle), row)
    faults = [(column, value) for column, value, _ in HOSTILE.values()]
    faults += [(TEXT, value) for value in ("x" * (LONGEST + 1), "x" * 900_000, 7, [], {}, ["a"], "x" * 10_000_000)]
    requests: list[Request] = []
    for column, value in faults:
        rows = [row, row | {column: value}]
        tensor = tensors(rows, nested=True)
        tensor["inputs"].append(
            {"name": TEXT, "shape": [2, 1], "datatype": "BYTES", "data": [each[TEXT] for each in rows]}
        )
        bodies = {PREDICT: rows[1], INVOCATIONS: {"dataframe_records": rows}, INFER: tensor}
        requests += [(path, json.dumps(body).encode()) for path, body in bodies.items()]
    good = tensors([row], nested=True)
    good["inputs"].append({"name": TEXT, "shape": [1, 1], "datatype": "BYTES", "data": [row[TEXT]]})
    for number in range(len(good["inputs"])):
        for shape in ([], [3], [2, 1], [1, 99], [-1, 1], [2**62, 2**62], "1", None):
            inputs = [each | {"shape": shape} if at == number else each for at, each in enumerate(good["inputs"])]
            requests.append((INFER, json.dumps({"inputs": inputs}).encode()))
    plain = json.dumps(row).encode()
    numbers = [plain.replace(b"4.5", number) for number in (b"NaN", b"1e999", b"-Infinity")]
    broken = [plain[:-5], plain.replace(b"a text", b"\xff\xfe"), plain.replace(b"a text", b"\\ud800"), b"", b"\0" * 99]
    large = [b"[" * 500_000, b"[" + b"1," * 5_000_000 + b"1]"]
    return bundle, row, [*requests, *((PREDICT, body) for body in (*numbers, *broken, *large))]


def _add_text(bundle: Path, row: dict[str, Any]) -> None:
    """Add a required text to a bundle. The graph has the input, but does not use it."""
    schema = Schema.model_validate_json((bundle / SCHEMA).read_bytes())
    text = Column(name=TEXT, type="text", required=True, maximum=LONGEST, private="drop")
    _write(bundle / SCHEMA, schema.model_copy(update={"columns": (*schema.columns, text)}))
    reference = Reference.model_validate_json((bundle / REFERENCE).read_bytes())
    counted = next(iter(reference.features.values()))
    _write(bundle / REFERENCE, reference.model_copy(update={"features": {**reference.features, TEXT: counted}}))
    golden = Golden.model_validate_json((bundle / GOLDEN).read_bytes())
    _write(bundle / GOLDEN, golden.model_copy(update={"rows": (row,)}))
    graph = onnx.load(bundle / MODEL)
    graph.graph.input.append(helper.make_tensor_value_info("categories", TensorProto.STRING, [None, 1]))
    (bundle / MODEL).write_bytes(graph.SerializeToString())


def _write(path: Path, content: BaseModel) -> None:
    path.write_text(content.model_dump_json(warnings=False))  # a golden row may contain lists


def _golden(server: Server, row: dict[str, Any]) -> bytes:
    status, answer = exchange(server.port, PREDICT, json.dumps([row]).encode())
    if status != 200:
        raise SlipwayError(f"The golden row was answered with status {status}.")
    return answer


def _post(server: Server, requests: Sequence[Request], count: int) -> tuple[dict[int, float], Counter[int]]:
    """Post requests in turn on one connection. Return the memory by the number of posted bodies, and all statuses."""
    memory, statuses = {0: server.resident_megabytes()}, Counter[int]()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    step = max(1, count // 20)
    end = time.monotonic() + MAX_SECONDS
    for posted in range(1, count + 1):
        path, body = requests[posted % len(requests)]
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        except ConnectionError:  # the server answers 413 and closes before it has read a body that is too large
            statuses[413] += 1
            connection.close()
        if posted % step == 0:
            memory[posted] = server.resident_megabytes()
        if time.monotonic() > end:
            break
    connection.close()
    return memory, statuses


if __name__ == "__main__":
    exit_with(main)
