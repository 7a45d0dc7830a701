"""Check params.yaml and the storage of data and models: the DVC remote, the source of deliveries, and MLflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from dvc_objects.fs.errors import RemoteMissingDepsError

from slipway import artifacts
from slipway.config import SAMPLE_SOURCE
from slipway.contract import load_model
from slipway.doctor.context import ANSWER_TIMEOUT_SECONDS, Fork, setting
from slipway.doctor.result import Finding, missing, ok, optional, unknown
from slipway.errors import InputError
from slipway.integrations.delivery_source import DeliverySource
from slipway.integrations.delta_source import DeltaSource
from slipway.monitoring.open_source import open_query

CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "azure": "Set AZURE_STORAGE_CONNECTION_STRING.",
    "gs": "Run `gcloud auth application-default login`.",
}
"""For each scheme of a DVC remote's address, the instruction to set the credentials."""


def params_file(fork: Fork) -> Finding:
    """Check that params.yaml is valid. An error message contains the line and the fix."""
    if isinstance(fork.settings, InputError):
        return missing(str(fork.settings))
    return ok(f"{artifacts.PARAMS} is valid.")


def remote(fork: Fork) -> Finding:
    """Check that the default DVC remote can be listed with the credentials of this machine.

    A remote inside the repository is reported as `optional`, except in the template, whose sample needs such a remote.
    """
    name, url = fork.default_remote, fork.remote_url
    if not name or not url:
        words = ".dvc/config has no default remote, so data and models cannot be shared."
        return missing(words, "dvc remote add --force --default storage s3://BUCKET/FOLDER")
    scheme = url.partition("://")[0] if "://" in url else ""
    elsewhere = f"dvc remote modify {name} url ADDRESS"
    try:
        store = _remote()
        store.fs.fs.ls(store.path)
    except FileNotFoundError:  # a folder in a bucket exists only after the first push
        if not scheme:
            return missing(f"The folder {url} of the remote {name} does not exist.", elsewhere)
    except (ImportError, RemoteMissingDepsError):
        place = f"Add `dvc-{scheme}` to requirements/model.in, as docs/storage.md shows."
        return missing(f"The package for the remote {name} is not installed.", place=place)
    except Exception as error:  # storage libraries raise exceptions of any type
        words = f"The remote {name} at {url} cannot be listed ({type(error).__name__})."
        return missing(words, "" if scheme in CREDENTIALS else elsewhere, CREDENTIALS.get(scheme, ""))
    if not scheme and _is_in_repository(url) and not Path(SAMPLE_SOURCE).is_dir():
        words = f"The remote {name} is a folder of this repository, so each `dvc push` adds data and models to git."
        place = "Run `dvc pull --allow-missing` first, and `dvc push` afterwards (docs/storage.md)."
        return optional(words, "dvc remote add --force --default storage s3://BUCKET/FOLDER", place)
    return ok(f"The remote {name} at {url} can be listed.")


def pushed(fork: Fork) -> Finding:
    """Check that the default DVC remote has all data files and the champion's files."""
    hashes = {}
    for file in (artifacts.DATA_DVC, artifacts.CHAMPION_DVC):
        stated = artifacts.stated_hash(file.read_bytes()) if file.is_file() else None
        if stated is None:
            command = f"mkdir -p {file.stem} && dvc add {file.stem}"
            return missing(f"{file} is missing or was not written by DVC.", command)
        hashes[file] = stated
    if (reached := remote(fork)).state == "missing":
        return unknown("Not checked, because the DVC remote cannot be listed.", reached.command, reached.place)
    store = _remote().odb
    for file, stated in hashes.items():
        listing, push = f"{stated}.dir", f"dvc push {file}"
        try:
            wanted = {info.value for _, _, info in Tree.load(store, HashInfo("md5", listing))}
        except FileNotFoundError:
            return missing(f"The remote {fork.default_remote} does not have the files of {file}.", push)
        if lacking := wanted - set(store.list_oids_exists(wanted)):
            words = f"The remote {fork.default_remote} lacks {len(lacking)} of {len(wanted)} files of {file}."
            # DVC skips a folder if the remote has its list of files, so that list must be deleted first.
            return missing(words, push, f"Before that, delete {store.oid_to_path(listing)} in the remote.")
    return ok(f"The remote {fork.default_remote} has all files of {' and '.join(map(str, hashes))}.")


def source(fork: Fork) -> Finding:
    """Check that the deliveries in the source can be listed, or that the query of the source can be read."""
    address = fork.params.ingest.source
    if not address:
        return optional("`ingest.source` is empty, so the workflow New data does nothing.", place=setting("source"))
    try:
        if fork.params.ingest.query:
            newest = open_query(fork.params.ingest, load_model(), fork.environ).newest()
            return ok(f"The query of the source {address} can be read. Its newest watermark is {newest}.")
        is_delta = fork.params.ingest.format == "delta"
        listing = (DeltaSource(fork.params.ingest, {}) if is_delta else DeliverySource(address)).listing()
    except InputError as error:
        return missing(str(error), "" if "://" in address else f"mkdir -p '{address}'", setting("source"))
    return ok(f"The source {address} can be listed. Deliveries in it: {len(listing.deliveries)}.")


def mlflow(fork: Fork) -> Finding:
    """Check that the MLflow server answers a request with the credentials of this machine."""
    uri, again = fork.environ.get("MLFLOW_TRACKING_URI"), "export MLFLOW_TRACKING_URI=https://HOST"
    if not uri:
        return ok("MLFLOW_TRACKING_URI is not set, so models are recorded in mlflow.db.")
    if not uri.startswith(("http://", "https://")):
        return ok(f"Models are recorded in {uri}, which is not a server.")
    try:
        url = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"
        status = requests.get(url, timeout=ANSWER_TIMEOUT_SECONDS, **_mlflow_login(fork.environ)).status_code
    except requests.RequestException as error:
        return missing(f"MLflow at {uri} does not answer ({type(error).__name__}).", again)
    if status in (401, 403):
        words = f"MLflow at {uri} answers {status}: the credentials are invalid."
        return missing(words, "read -rs MLFLOW_TRACKING_PASSWORD && export MLFLOW_TRACKING_PASSWORD")
    if status != 200:
        return missing(f"{uri} answers {status}, so it is not an MLflow server.", again)
    return ok(f"MLflow at {uri} answers.")


def _is_in_repository(folder: str) -> bool:
    return Path(folder).resolve().is_relative_to(Path().resolve())


def _remote() -> Any:
    return Repo().cloud.get_remote()


def _mlflow_login(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments for `requests.get` with the credentials that MLflow's client would use."""
    if user := environ.get("MLFLOW_TRACKING_USERNAME"):
        return {"auth": (user, environ.get("MLFLOW_TRACKING_PASSWORD", ""))}
    token = environ.get("MLFLOW_TRACKING_TOKEN")
    return {"headers": {"Authorization": f"Bearer {token}"}} if token else {}
