"""A model with every kind of column, and the metrics of servers that count requests to it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest

from slipway.bundle import Column, FeatureReference, Reference, Schema
from slipway.serving.metrics import Metrics

BUNDLE = "0123456789abcdef0123456789abcdef"
NUMBERS, CATEGORIES = ("size", "latitude", "day"), ("kind", "colour")
SCHEMA = Schema(
    kind="classification",
    key=("size",),
    target="label",
    classes=("size", "other"),
    columns=(
        Column(name="kind", type="category", required=False),
        Column(name="size", type="number", required=False),
        Column(name="latitude", type="number", required=False),
        Column(name="day", type="date", required=True),
        Column(name="colour", type="category", required=False),
    ),
)
THIRDS = tuple(float(edge) for edge in np.float32([1 / 3, 2 / 3]))
REFERENCE = Reference(
    features={
        "size": FeatureReference(edges=(-1.5, 0.0, 1.5), counts=(70, 430, 430, 70), missing=0),
        "latitude": FeatureReference(
            edges=tuple(float(edge) for edge in np.float32([41.599, 41.6, 1e-9])[[2, 0, 1]]),
            counts=(0, 500, 400, 50),
            missing=50,
        ),
        "day": FeatureReference(edges=(10_000.0,), counts=(500, 500), missing=0),
        "kind": FeatureReference(values=('a "quoted" \\ one', "b", "(missing)"), counts=(500, 400, 90), missing=10),
        "colour": FeatureReference(values=("ü\n",), counts=(1000,), missing=0),
    },
    prediction={
        "size": FeatureReference(edges=THIRDS, counts=(300, 300, 400), missing=0),
        "other": FeatureReference(edges=THIRDS, counts=(400, 300, 300), missing=0),
    },
)


class Sent:
    """Random rows as tensors, and predictions for them."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        numbers = random.normal(size=(rows, 3)) * [1, 0.01, 1] + [0, 41.6, 10_000]
        edges = [*(REFERENCE.features["size"].edges or ()), *(REFERENCE.features["latitude"].edges or ())]
        numbers[:, :2] = np.where(random.random((rows, 2)) < 0.1, random.choice(edges, (rows, 2)), numbers[:, :2])
        numbers[:, :2][random.random((rows, 2)) < 0.05] = np.nan
        self.numbers = numbers.astype(np.float32)
        kinds = ['a "quoted" \\ one', "b", "(missing)", "", "never seen", "nor this"]
        colours = np.where(random.random(rows) < 0.9, "ü\n", "")
        self.categories = np.array([random.choice(kinds, rows).tolist(), colours.tolist()], dtype=object).T
        answers = random.random(rows)
        self.predictions = np.array([answers, 1 - answers], dtype=np.float32).T

    def to(self, metrics: Metrics, rows: NDArray[np.int64] | slice = slice(None)) -> None:
        tensors = {"numbers": self.numbers[rows].copy(), "categories": self.categories[rows]}
        if len(tensors["numbers"]):
            metrics.predicted(tensors, self.predictions[rows])


def server(bundle: str = BUNDLE) -> Metrics:
    return Metrics(SCHEMA, REFERENCE, {"name": "model", "bundle": bundle})


def page(metrics: Metrics) -> str:
    """Return the output of /metrics."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


def dealt(sent: Sent, replicas: int, seed: int = 1) -> Sequence[Metrics]:
    """Return servers that have counted the rows, distributed at random in requests of several rows."""
    servers = [server() for _ in range(replicas)]
    of = np.random.default_rng(seed).integers(0, replicas, len(sent.numbers))
    for number, each in enumerate(servers):
        for rows in np.array_split(np.flatnonzero(of == number), 3):
            sent.to(each, rows)
    return servers
