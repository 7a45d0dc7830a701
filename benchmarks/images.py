"""Measure the ingestion of many small images: `python -m benchmarks.images`.

The same delivery of 100,000 gray PNG files of 28 x 28 pixels is ingested and validated in two forms: as a folder of
Parquet files with bytes, and as a folder of image files with an index. The model is examples/image. `ingest` copies the
delivery from the source, packs image files into archives, validates the delivery, and records it with DVC. `push`
copies it to a DVC remote, which is a folder here. The pixels are random, so the files cannot be compressed.

Required: `ingest` takes at most 5 minutes, and each command needs at most 1.5 GB of memory.
"""

import argparse
import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image
from rich.table import Table

from benchmarks.scratch import BIN, REPOSITORY, Usage, clone, console, exit_with, require, run_measured
from slipway import artifacts
from slipway.integrations import process

IMAGES = 100_000
SHARDS = 10
SIDE = 28
MOST_SECONDS, MOST_GIGABYTES = 300.0, 1.5
COMMANDS = {
    "ingest": (BIN / "slipway", "ingest"),
    "validate": (BIN / "slipway", "validate"),
    "push": (BIN / "dvc", "push", "--quiet", "data.dvc"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES, help="number of images")
    count: int = parser.parse_args().images
    found: dict[tuple[str, str], Usage] = {}
    for form, write in {"Parquet": _write_shards, "files and index": _write_files}.items():
        with tempfile.TemporaryDirectory() as folder:
            repository = _repository(Path(folder) / "repository")
            source = repository / "sample/source/2025-1"
            source.mkdir(parents=True)
            write(source, _rows(count))
            for name, command in COMMANDS.items():
                usage = found[form, name] = run_measured(repository, *command)
                console.print(f"[dim]{form}: {name} took {usage.seconds:.0f} s, {usage.cpu_seconds:.0f} s of CPU[/]")
    table = Table("seconds (CPU)", *COMMANDS, "GB", box=None, padding=(0, 2, 0, 0))
    for form in dict.fromkeys(form for form, _ in found):
        usages = [found[form, name] for name in COMMANDS]
        most = max(each.memory for each in usages) / 1e9
        table.add_row(form, *(f"{each.seconds:.0f} ({each.cpu_seconds:.0f})" for each in usages), f"{most:.2f}")
    console.print(table)
    slowest = max(usage.seconds for (_, name), usage in found.items() if name == "ingest")
    largest = max(usage.memory for usage in found.values()) / 1e9
    return require(
        {
            f"ingest takes at most {MOST_SECONDS:.0f} s for {count:,} images ({slowest:.0f})": slowest <= MOST_SECONDS,
            f"at most {MOST_GIGABYTES:g} GB of memory ({largest:.2f})": largest <= MOST_GIGABYTES,
        }
    )


def _repository(to: Path) -> Path:
    """Clone the template, and replace its model by examples/image with larger images."""
    clone(to, "champion.dvc")
    for folder in ("src/model", "sample/source"):
        shutil.rmtree(to / folder)
    example = REPOSITORY / "examples/image"
    shutil.copytree(example / "src/model", to / "src/model")
    shutil.copy(example / "params.yaml", to)
    schema = to / "src/model/schema.py"
    schema.write_text(schema.read_text().replace('"size": (8, 8)', f'"size": ({SIDE}, {SIDE})'))
    params = to / "params.yaml"
    params.write_text(params.read_text().replace("source: ''", "source: sample/source, auto_merge: false"))
    (to / artifacts.DATA_DVC).unlink()
    (to / artifacts.DATA).mkdir(exist_ok=True)
    process.run("dvc", "remote", "add", "--default", "--force", "sample", str(to.parent / "remote"), at=to)
    return to


def _rows(count: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "scan": [f"S{number}" for number in range(count)],
        "scanned": [f"2025-01-{1 + 28 * number // count:02}" for number in range(count)],
        "photo": [_png(random.integers(0, 256, (SIDE, SIDE), np.uint8)) for _ in range(count)],
        "ink": ["[1, 1, 1, 1, 1, 1, 1, 1]"] * count,
        "digit": [str(number % 10) for number in range(count)],
    }


def _png(pixels: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _write_shards(folder: Path, rows: dict[str, Any]) -> None:
    table = pa.table(rows)
    size = -(-len(table) // SHARDS)
    for shard in range(SHARDS):
        pq.write_table(table.slice(shard * size, size), folder / f"part-{shard:05}.parquet")


def _write_files(folder: Path, rows: dict[str, Any]) -> None:
    (folder / "photos").mkdir()
    names = [f"photos/{scan}.png" for scan in rows["scan"]]
    for name, content in zip(names, rows["photo"], strict=True):
        (folder / name).write_bytes(content)
    pa.csv.write_csv(pa.table(rows | {"photo": names}), folder / "index.csv")


if __name__ == "__main__":
    exit_with(main)
