"""Read deliveries and lists of keys in one sequence. A list of keys deletes rows of earlier deliveries."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from heapq import merge
from pathlib import Path
from typing import Any, cast

import pandera.pandas as pa

from slipway.config import Validate
from slipway.contract import KeyModel, Model
from slipway.delivery_names import is_key_list
from slipway.pipeline.deliveries import Delivery, read_deliveries
from slipway.pipeline.delivery_cache import DeliveryCache


def lists_keys(name: str, rules: Validate) -> bool:
    """Return whether the delivery `name` is read as a list of keys."""
    return rules.deletions == "accept" and is_key_list(name)


def read_with_key_lists(
    paths: Mapping[str, Path],
    model: Model,
    rules: Validate,
    today: date,
    cache: DeliveryCache,
    where: str | None = None,
) -> Iterator[Delivery]:
    """Read deliveries and lists of keys, as `read_deliveries` does, ordered by name.

    A list of keys is not cached, because it is small. Raises InputError if its columns are not those of KEY.
    """
    rows = {name: path for name, path in paths.items() if not lists_keys(name, rules)}
    read = read_deliveries(rows, model, rules, today, cache, where)
    if len(rows) == len(paths):
        return read
    lists = {name: path for name, path in paths.items() if name not in rows}
    return merge(read, _read_lists(lists, model, rules, today, where), key=lambda part: part.name)


def _read_lists(
    paths: Mapping[str, Path], model: Model, rules: Validate, today: date, where: str | None
) -> Iterator[Delivery]:
    columns = pa.DataFrameSchema({name: model.SCHEMA.columns[name] for name in model.KEY})
    keys = cast("Any", KeyModel(columns, model.KEY))
    for part in read_deliveries(paths, keys, rules, today, DeliveryCache(keys, None, rules), where):
        yield replace(part, is_key_list=True)
