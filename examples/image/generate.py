"""Write deliveries of scanned digits as Parquet: python examples/image/generate.py FOLDER.

The digits are the data set `digits` of scikit-learn, which is a copy of the test set of the UCI data set "Optical
Recognition of Handwritten Digits". The days are invented. Equal arguments give equal files.
"""

import argparse
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

START = date(2025, 1, 1)
PER_DAY = 10
DAYS_PER_DELIVERY = 60


def scans(delivery: int) -> list[dict[str, Any]]:
    """Return the scans of one delivery, ordered by day. There are enough digits for three deliveries."""
    digits = load_digits()
    first = delivery * DAYS_PER_DELIVERY * PER_DAY
    return [
        {
            "scan": f"S{number}",
            "scanned": str(START + timedelta(days=number // PER_DAY)),
            "photo": as_png(pixels := (digits.images[number] * 15).astype(np.uint8)),
            "ink": (pixels.sum(axis=1) / 255).round(2).tolist(),
            "digit": str(digits.target[number]),
        }
        for number in range(first, min(first + DAYS_PER_DELIVERY * PER_DAY, len(digits.images)))
    ]


def as_png(pixels: Any) -> bytes:
    """Return a PNG file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_delivery(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write scans as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    types = {"photo": pa.binary(), "ink": pa.list_(pa.float32())}
    columns = {name: pa.array([row[name] for row in rows], types.get(name, pa.string())) for name in rows[0]}
    pq.write_table(pa.table(columns), path)


def write_deliveries(folder: Path, deliveries: int = 3) -> None:
    """Write each delivery as a Parquet file."""
    for delivery in range(deliveries):
        write_delivery(folder / f"2025-{delivery + 1}.parquet", scans(delivery))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_deliveries(parser.parse_args().folder)
