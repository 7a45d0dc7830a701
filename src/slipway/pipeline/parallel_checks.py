"""Check deliveries in several processes, also on other machines, and add the checked rows to the cache."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path

from slipway.config import Validate
from slipway.contract import load_model
from slipway.errors import InputError
from slipway.integrations.compute import Engine, run_each
from slipway.pipeline.deliveries import read_deliveries
from slipway.pipeline.delivery_cache import DeliveryCache

TASK_BYTES = 8 * 1024 * 1024
"""Minimum size of a task in bytes. Small deliveries are checked together, because each task has a fixed cost."""


def check_in_parallel(
    paths: Mapping[str, Path], rules: Validate, today: date, cache: DeliveryCache, folder: Path, engine: Engine
) -> None:
    """Check the deliveries that are not in the cache, and add the results to it. `folder` is the folder of the cache.

    If a delivery raises InputError, it is not added. The process that reads the cache checks this delivery again, and
    raises the error.
    """
    tasks = [*_tasks(cache.missing(paths))]
    if len(tasks) > 1:
        for _ in run_each(engine, partial(_check, rules, today, folder.absolute()), tasks):
            pass


def _tasks(paths: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Yield groups of deliveries that are checked together, with absolute paths."""
    task: dict[str, Path] = {}
    size = 0
    for name, path in paths.items():
        task[name] = path.absolute()
        files = [path] if path.is_file() else [*path.rglob("*")]
        size += sum(file.stat().st_size for file in files)
        if size >= TASK_BYTES:
            yield task
            task, size = {}, 0
    if task:
        yield task


def _check(rules: Validate, today: date, folder: Path, paths: Mapping[str, Path]) -> None:
    model = load_model()
    with suppress(InputError):
        for _ in read_deliveries(paths, model, rules, today, DeliveryCache(model, folder, rules)):
            pass
