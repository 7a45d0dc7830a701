"""Compare the memory that a server needs with the memory limit in the Kubernetes manifests."""

import math
import re
from pathlib import Path

from ruamel.yaml import YAML

from slipway.errors import InputError

MANIFEST = Path("kustomize/base/deployment.yaml")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(|k|M|G|Ki|Mi|Gi)")
BODIES = 64 * 2**20
"""Memory in bytes for the bodies of simultaneous requests. By default, the server reads at most 64 bodies at a time
(SLIPWAY_MAX_UPLOADS), with at most 1 MiB each (SLIPWAY_MAX_BODY).
"""
STEP = 128 * 2**20
"""Suggested memory limits are multiples of this number of bytes."""


def memory_limit(manifest: Path = MANIFEST) -> int | None:
    """Return the memory limit of the server in bytes, or None if the manifest or the limit is missing."""
    if not manifest.is_file():
        return None
    document = YAML(typ="safe").load(manifest.read_text(encoding="utf-8"))
    (server,) = (each for each in document["spec"]["template"]["spec"]["containers"] if each["name"] == "server")
    given = server.get("resources", {}).get("limits", {}).get("memory")
    return None if given is None else _bytes(str(given))


def compared(peak: int, records: int, seconds: float, limit: int | None) -> str:
    """Return a sentence that compares the peak memory `peak` with `limit`, both in bytes.

    The peak was measured while the server answered one request with `records` records in `seconds` seconds.
    """
    needed = peak + BODIES
    measured = f"{records:,} records in one request: {seconds:.1f} s, peak memory {peak / 2**20:.0f} MiB"
    if limit is None:
        return measured
    if needed <= limit:
        return f"{measured}; with {BODIES >> 20} MiB for bodies, this fits the limit of {limit >> 20} MiB"
    return (
        f"WARNING: {measured}; with {BODIES >> 20} MiB for bodies, this exceeds the limit of {limit >> 20} MiB; set "
        f"{math.ceil(needed / STEP) * STEP >> 20}Mi in {MANIFEST}, or a lower SLIPWAY_MAX_RECORDS"
    )


def _bytes(quantity: str) -> int:
    found = QUANTITY.fullmatch(quantity)
    if found is None:
        raise InputError(f"{MANIFEST}: the memory limit {quantity!r} is not a size; write it as 256Mi.")
    return int(float(found[1]) * UNITS[found[2]])
