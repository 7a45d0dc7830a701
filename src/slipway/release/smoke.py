"""Smoke-test an image: start it with the restrictions of the cluster, send requests, and stop it with SIGTERM."""

import io
import json
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from docker.errors import APIError
from pydantic import ValidationError
from requests.exceptions import RequestException

from slipway.bundle import GOLDEN, Golden, folder_hash, read_golden
from slipway.errors import CheckFailed, InputError
from slipway.integrations.ports import free_port
from slipway.provenance import LABELS, Provenance
from slipway.release.image import connect, first_line, pull
from slipway.release.load_client import LoadClient, ask, ask_text, is_ready
from slipway.release.memory_limit import compared, memory_limit
from slipway.serving.served_model import GOLDEN_TOLERANCE
from slipway.serving.settings import read_settings

USER = 54321
"""An arbitrary user ID. Some clusters run each container with a user ID that they choose."""
RESTRICTIONS = {
    "user": f"{USER}:{USER}",
    "read_only": True,
    "tmpfs": dict.fromkeys(("/run", "/tmp", "/var/tmp"), "ro"),  # noqa: S108 (Podman makes them writable by default)
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "4g",  # above the limit in the cluster, to measure the peak
    "pids_limit": 64,
}
SETTINGS = {
    "SLIPWAY_GRACE": "2",
    "SLIPWAY_MAX_WAIT": "30",
}  # a long wait, so that the server does not refuse requests because of overload
START = 60
"""Maximum number of seconds from the start of the container until the server is ready. A busy machine needs over 20."""
GRACE = 1.5
"""Number of seconds after SIGTERM in which the server must still answer every request. Below SLIPWAY_GRACE."""
STOP = 15
"""Maximum number of seconds from the end of GRACE until the container has exited."""
LARGEST = 120
"""Maximum number of seconds for the answer to the largest request."""
PEAK = re.compile(r"^slipway_peak_memory_bytes (\S+)$", re.MULTILINE)
UNWANTED = ("sh", "bash", "dash", "ash", "busybox", "pip", "pip3", "apt-get", "apk", "dnf", "gcc", "cc", "ld")
LOOK = f"""
import importlib.util, json, os, shutil
writable = []
for here, folders, _ in os.walk("/"):
    folders[:] = [name for name in folders if here != "/" or name not in ("proc", "sys", "dev")]
    if os.access(here, os.W_OK):
        writable.append(here)
status = dict(line.rstrip().split(":", 1) for line in open("/proc/1/status"))
print(json.dumps({{
    "users": status["Uid"].split(),
    "capabilities": int(status["CapPrm"], 16) | int(status["CapBnd"], 16),
    "may_gain": status["NoNewPrivs"].strip() != "1",
    "writable": writable,
    "unwanted": [name for name in {UNWANTED} if shutil.which(name)] + ["pip"] * bool(importlib.util.find_spec("pip")),
}}))
"""


def smoke(image: str, bundle: Path | None = None) -> Iterator[str]:
    """Test an image, and yield a line for every check that it passes.

    The expected predictions are in golden.json in the image. If `bundle` is given, the image must contain this bundle.
    Raises CheckFailed at the first check that fails. Raises InputError if no engine answers, or if the image does not
    exist.
    """
    client = connect()
    try:
        # An image with a digest in its name is pulled from its registry, as a node of a cluster does.
        attributes = (pull(image) if "@" in image else client.images.get(image)).attrs["Config"]
    except APIError:
        raise InputError(f"The engine has no image {image}; build it with `slipway image build`.") from None
    yield _check_user(attributes.get("User", ""))
    with _running(client, image) as (container, port):
        yield _check_start(container, port)
        yield _check_inside(client, container)
        yield _check_provenance(port, _labelled(attributes.get("Labels") or {}), bundle)
        golden = _golden(container, attributes, bundle)
        yield _check_answers(port, golden)
        yield _compare_memory(port, golden, attributes.get("Env") or [])
        yield _check_stop(container, port, json.dumps(golden.rows[0]).encode())


@contextmanager
def _running(client: Any, image: str) -> Iterator[tuple[Any, int]]:
    """Create a container, and yield it with its port.

    The port has the same number in the container and on this machine. The test therefore also works if the container
    uses the network of the host.
    """
    port = free_port()
    try:
        container = client.containers.create(
            image,
            environment={"SLIPWAY_PORT": str(port), **SETTINGS},
            ports={f"{port}/tcp": ("127.0.0.1", port)},
            **RESTRICTIONS,
        )
    except APIError as error:
        raise InputError(f"The engine cannot create a container of {image}: {first_line(error)}.") from None
    try:
        yield container, port
    finally:
        container.remove(force=True, v=True)


def _check_user(user: str) -> str:
    """Require a user with a number above 0, as the Kubernetes setting `runAsNonRoot` does."""
    number = user.partition(":")[0]
    if not number.isdigit() or int(number) == 0:
        raise CheckFailed(f"The image runs as {user or 'root'}; give it a USER with a number above 0.")
    return f"runs as user {number} by default"


def _check_start(container: Any, port: int) -> str:
    started = time.monotonic()
    try:
        container.start()
    except APIError as error:
        raise CheckFailed(f"The container does not start: {first_line(error)}.") from None
    while time.monotonic() - started < START:
        if is_ready(port):
            return f"ready {time.monotonic() - started:.2f} s after its start"
        container.reload()
        if container.status not in ("created", "running"):
            log = container.logs().decode(errors="replace").strip().splitlines() or ["it logged nothing"]
            raise CheckFailed(f"The server ends before it is ready: {log[-1]}")
        time.sleep(0.02)
    raise CheckFailed(f"The server is not ready after {START} s.")


def _check_inside(client: Any, container: Any) -> str:
    if client.info().get("Isolation") == "process":  # only the engine of the demo
        return "user, capabilities and files NOT TRIED: the engine runs plain processes, not containers"
    code, output = container.exec_run(["python3", "-c", LOOK])
    if code:
        raise CheckFailed(f"Python cannot inspect the image: {output.decode(errors='replace').strip()[-200:]}")
    found = json.loads(output)
    if "0" in found["users"]:
        raise CheckFailed("The server runs as root, not as the user that the cluster sets.")
    if found["capabilities"] or found["may_gain"]:
        raise CheckFailed("The server has capabilities, or may gain some, because the engine ignores the restrictions.")
    if found["writable"]:
        raise CheckFailed(
            f"{found['writable'][0]} can be written; declare no VOLUME, and leave the files of the image to root."
        )
    if found["unwanted"]:
        raise CheckFailed(f"The image has {', '.join(found['unwanted'])}; use a base image without a shell and tools.")
    return f"as user {USER}: no capabilities, nothing writable; no shell, no pip, no compiler"


def _labelled(labels: dict[str, str]) -> Provenance:
    try:
        return Provenance.from_labels(labels)
    except ValidationError:
        raise CheckFailed(f"The image has no label {LABELS['bundle']}; build it with `slipway image build`.") from None


def _check_provenance(port: int, labelled: Provenance, bundle: Path | None) -> str:
    served = Provenance.model_validate(ask(port, "GET", "/version")["provenance"])
    if served.labels() != labelled.labels():
        raise CheckFailed(f"/version returns {served}, but the labels are {labelled}.")
    if bundle and folder_hash(bundle) != labelled.bundle:
        raise CheckFailed(f"The image has bundle {labelled.bundle}, but {bundle} is {folder_hash(bundle)}.")
    return f"/version and labels agree: bundle {labelled.bundle:.12}, commit {labelled.commit or 'unknown':.12}"


def _golden(container: Any, attributes: dict[str, Any], bundle: Path | None) -> Golden:
    if bundle:
        return read_golden(bundle)
    try:
        chunks, _ = container.get_archive(f"{attributes['Entrypoint'][-1]}/{GOLDEN}")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            file = tar.extractfile(GOLDEN)
            return Golden.model_validate_json(file.read() if file else b"")
    except (OSError, APIError, ValidationError) as error:
        raise InputError(f"{GOLDEN} cannot be read: {first_line(error)}.") from None


def _check_answers(port: int, golden: Golden) -> str:
    answers = ask(port, "POST", "/predict", golden.rows)
    given = [list(each.get("probabilities", {"": each["prediction"]}).values()) for each in answers]
    close = np.isclose(given, golden.predictions, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE).all(axis=1)
    if not close.all():
        row = int(np.flatnonzero(~close)[0])
        raise CheckFailed(f"The answer to row {row} of {GOLDEN} is {given[row]}, not {list(golden.predictions[row])}.")
    return f"{len(given)} golden rows answered as recorded"


def _compare_memory(port: int, golden: Golden, variables: Sequence[str]) -> str:
    """Send the largest accepted request, and compare the server's peak memory with the limit in kustomize/."""
    settings = read_settings(dict(each.split("=", 1) for each in variables))
    size = max(len(json.dumps(row)) for row in golden.rows) + len(", ")
    records = max(1, min(settings.max_records, settings.max_body // size))
    started = time.monotonic()
    ask(port, "POST", "/predict", [golden.rows[i % len(golden.rows)] for i in range(records)], seconds=LARGEST)
    seconds = time.monotonic() - started
    peak = PEAK.search(ask_text(port, "/metrics"))
    return compared(int(float(peak[1])) if peak else 0, records, seconds, memory_limit())


def _check_stop(container: Any, port: int, body: bytes) -> str:
    with LoadClient(port, [body]).sending() as clients:
        time.sleep(0.5)
        try:
            container.kill("SIGTERM")
        except APIError as error:
            raise CheckFailed(f"The server ends under load: {first_line(error)}.") from None
        told = time.monotonic()
        time.sleep(GRACE / 2)
        left = not is_ready(port)
        time.sleep(max(0.0, told + GRACE - time.monotonic()))
    sent, failures = len(clients.outcomes), clients.failures
    if failures:
        raise CheckFailed(f"{len(failures)} of {sent} requests failed around SIGTERM: {failures[0]}.")
    if not left:
        raise CheckFailed("The server is still ready after SIGTERM, so the cluster would send it more requests.")
    try:
        code = container.wait(timeout=STOP)["StatusCode"]
    except RequestException:
        raise CheckFailed(f"The server still runs {STOP + GRACE:g} s after SIGTERM.") from None
    if code:
        raise CheckFailed(f"The server ends with exit code {code} after SIGTERM.")
    seconds = time.monotonic() - told
    return f"SIGTERM under load: {sent:,} requests, 0 failed; gone with exit code 0 after {seconds:.1f} s"
