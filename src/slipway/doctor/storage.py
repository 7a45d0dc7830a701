"""Where data, models and their record are kept: the DVC remote, the source of deliveries, MLflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from dvc_objects.fs.errors import RemoteMissingDepsError

from slipway import artifacts
from slipway.doctor.context import ANSWER_TIMEOUT_SECONDS, Fork, edit, edit_line
from slipway.doctor.result import Finding, holds, missing, unknown
from slipway.errors import InputError
from slipway.integrations.delivery_source import DeliverySource

CREDENTIALS = {
    "s3": "dvc remote modify --local {} access_key_id ID && dvc remote modify --local {} secret_access_key KEY",
    "azure": "dvc remote modify --local {} connection_string STRING",
    "gs": "gcloud auth application-default login",
}
"""What lets DVC into a remote, by the scheme of its address."""


def params_file(fork: Fork) -> Finding:
    if isinstance(fork.settings, InputError):
        words = str(fork.settings)
        line = words.partition("line ")[2].partition(":")[0]
        return missing(words, edit_line(artifacts.PARAMS, int(line) if line.isdecimal() else 1))
    return holds(f"{artifacts.PARAMS} is valid.")


def remote(fork: Fork) -> Finding:
    """Whether the default remote can be listed with the credentials that are here."""
    name, url = fork.default_remote, fork.remote_url
    if not name or not url:
        words = ".dvc/config names no default remote, or cannot be read, so nobody gets the data."
        return missing(words, "dvc remote add --force --default storage s3://BUCKET/FOLDER")
    scheme = url.partition("://")[0] if "://" in url else ""
    elsewhere = f"dvc remote modify {name} url ADDRESS"
    try:
        store = _remote()
        store.fs.fs.ls(store.path)
    except FileNotFoundError:  # which in a bucket means that nothing was pushed yet
        if not scheme:
            return missing(f"The remote {name} is the folder {url}, which is not there.", elsewhere)
    except (ImportError, RemoteMissingDepsError):
        command = f"perl -pi -e 's|\"dvc>=|\"dvc[{scheme}]>=|' pyproject.toml && make lock setup"
        return missing(f"The remote {name} needs a package of DVC's that is not installed.", command)
    except Exception as error:  # each kind of storage raises what it likes
        command = CREDENTIALS.get(scheme, elsewhere).replace("{}", name)
        return missing(f"The remote {name} at {url} cannot be listed ({type(error).__name__}).", command)
    return holds(f"The remote {name} at {url} can be listed.")


def data(fork: Fork) -> Finding:
    return _kept(fork, artifacts.DATA_DVC, "dvc add data")


def champion(fork: Fork) -> Finding:
    return _kept(fork, artifacts.CHAMPION_DVC, "mkdir -p champion && dvc add champion")


def source(fork: Fork) -> Finding:
    """Of deliveries."""
    address = fork.params.ingest.source
    try:
        names = DeliverySource(address).names()
    except InputError as error:
        command = edit(artifacts.PARAMS, "source:") if "://" in address else f"mkdir -p '{address}'"
        return missing(str(error), command)
    return holds(f"The source {address} can be listed: {len(names)} deliveries.")


def mlflow(fork: Fork) -> Finding:
    """Whether the tracking server answers, and to these credentials."""
    uri, again = fork.environ.get("MLFLOW_TRACKING_URI"), "export MLFLOW_TRACKING_URI=https://HOST"
    if not uri:
        return holds("MLFLOW_TRACKING_URI is not set, so records are kept in mlflow.db here.")
    if not uri.startswith(("http://", "https://")):
        words = f"MLFLOW_TRACKING_URI is {uri}, which is no server; whether it can be opened was not tried."
        return unknown(words, "mlflow experiments search")
    try:
        url = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"
        status = requests.get(url, timeout=ANSWER_TIMEOUT_SECONDS, **_mlflow_login(fork.environ)).status_code
    except requests.RequestException as error:
        return missing(f"MLflow at {uri} does not answer ({type(error).__name__}).", again)
    if status in (401, 403):
        words = f"MLflow at {uri} answers {status}: it does not take these credentials."
        return missing(words, "read -rs MLFLOW_TRACKING_PASSWORD; export MLFLOW_TRACKING_PASSWORD")
    if status != 200:
        return missing(f"{uri} answers {status}, as MLflow does not.", again)
    return holds(f"MLflow at {uri} answers.")


def _remote() -> Any:
    return Repo().cloud.get_remote()


def _kept(fork: Fork, file: Path, start: str) -> Finding:
    """Whether the default remote has all that a .dvc file names."""
    stated = artifacts.stated_hash(file.read_bytes()) if file.is_file() else None
    if stated is None:
        return missing(f"{file} is missing, or is no file of DVC's.", start)
    if (reached := remote(fork)).state != "holds":
        return unknown("Not seen, as the DVC remote is not in reach.", reached.command)
    name, listing, push = fork.default_remote, f"{stated}.dir", f"dvc push {file}"
    store = _remote().odb
    try:
        wanted = {info.value for _, _, info in Tree.load(store, HashInfo("md5", listing))}
    except FileNotFoundError:
        return missing(f"The remote {name} does not have what {file} names.", push)
    if lacking := wanted - set(store.list_oids_exists(wanted)):
        # DVC takes a folder that is listed there for whole, so the list has to be pushed again too.
        forget = f"python -c 'from dvc.repo import Repo; Repo().cloud.get_remote().odb.delete(\"{listing}\")'"
        words = f"The remote {name} lacks {len(lacking)} of {len(wanted)} files of {file}."
        return missing(words, f"dvc checkout {file} && {forget} && {push}")
    return holds(f"The remote {name} has all {len(wanted)} files of {file}.")


def _mlflow_login(environ: Mapping[str, str]) -> dict[str, Any]:
    """As MLflow's own client shows who it is."""
    if user := environ.get("MLFLOW_TRACKING_USERNAME"):
        return {"auth": (user, environ.get("MLFLOW_TRACKING_PASSWORD", ""))}
    token = environ.get("MLFLOW_TRACKING_TOKEN")
    return {"headers": {"Authorization": f"Bearer {token}"}} if token else {}
