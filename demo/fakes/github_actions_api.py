"""The part of the fake GitHub API that lists and starts workflows and their runs."""

import io
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from starlette.responses import Response
from starlette.routing import BaseRoute

from demo.fakes.github_call import Call, Refusal, Reply, route


def parse(workflow: str) -> dict[str, Any]:
    """Parse a workflow file as YAML 1.2, in which the key `on` is a text and not a boolean."""
    parsed: dict[str, Any] = YAML(typ="safe", pure=True).load(workflow)
    return parsed


def triggers(workflow: str) -> dict[str, Any]:
    """Return the events that start a workflow, each with its filters."""
    on = parse(workflow)["on"]
    if isinstance(on, str):
        return {on: {}}
    events = dict.fromkeys(on) if isinstance(on, list) else on
    return {event: filters or {} for event, filters in events.items()}


def get_workflow(call: Call) -> Reply:
    name = _name(call)
    state = "disabled_manually" if name in call.state.disabled else "active"
    path = f".github/workflows/{name}"
    numbered = sorted(call.state.workflows)
    number = numbered.index(name) if numbered else 1
    return 200, {
        "id": number,
        "name": name,
        "path": path,
        "state": state,
        "url": call.url(f"/actions/workflows/{name}"),
    }


def list_runs(call: Call) -> Reply:
    path = f".github/workflows/{_name(call)}"
    wanted = {"path": path} | {key: call.query[key] for key in ("head_sha", "event", "status") if key in call.query}
    runs = [each for each in call.state.runs.values() if all(each.get(key) == value for key, value in wanted.items())]
    runs.sort(key=lambda run: -run["id"])
    return 200, {"total_count": len(runs), "workflow_runs": [_run(call, each) for each in runs]}


def get_run(call: Call) -> Reply:
    return 200, _run(call, _known(call))


def list_artifacts(call: Call) -> Reply:
    """List the artifacts of a run. The id of an artifact is the number of its run."""
    run = _known(call)
    host = call.state.host
    files = sorted(host.artifacts.glob(f"{run['id']}/*.tar")) if host else []
    found = [_artifact(call, run["id"], file) for file in files]
    return 200, {"total_count": len(found), "artifacts": found}


def _artifact(call: Call, run: int, file: Path) -> dict[str, Any]:
    address = call.url(f"/actions/artifacts/{run}/{file.stem}/zip")
    size = file.stat().st_size
    return {"id": run, "name": file.stem, "expired": False, "size_in_bytes": size, "archive_download_url": address}


def download_artifact(call: Call) -> Response:
    """Return an artifact as a ZIP archive."""
    if call.state.host is None:
        raise Refusal(404, "Not Found")
    file = call.state.host.artifacts / f"{call.parameters['number']}/{call.parameters['name']}.tar"
    packed = io.BytesIO()
    with tarfile.open(file) as tar, zipfile.ZipFile(packed, "w") as archive:
        for each in tar:
            if content := tar.extractfile(each) if each.isfile() else None:
                archive.writestr(each.name.removeprefix("./"), content.read())
    return Response(packed.getvalue(), media_type="application/zip")


def rerun(call: Call) -> Reply:
    run = _known(call)
    if run["status"] != "completed":
        raise Refusal(403, "This workflow is already running")
    if call.state.host:
        call.state.host.rerun(run["id"])
    return 201, {}


def cancel(call: Call) -> Reply:
    run = _known(call)
    if run["status"] == "completed":
        raise Refusal(409, "Cannot cancel a workflow run that is completed.")
    if call.state.host:
        call.state.host.cancel_run(run["id"])
    return 202, {}


def dispatch(call: Call) -> Reply:
    """Start a workflow by hand, if its file on the default branch allows that."""
    state, name = call.state, _name(call)
    ref, inputs = call.body["ref"], call.body.get("inputs") or {}
    if name in state.disabled:
        raise Refusal(422, "Cannot trigger a 'workflow_dispatch' on a disabled workflow")
    if state.host and state.host.branch_head(ref) is None:
        raise Refusal(422, f"No ref found for: {ref}")
    if state.workflows:
        check_inputs(state.workflows[name], inputs)
    state.dispatched.append({"workflow": name, "ref": ref, "inputs": inputs})
    number = state.host.on_dispatch(name, ref, inputs, call.token) if state.host else len(state.dispatched)
    if not call.body.get("return_run_details"):
        return 204, None
    address = call.url(f"/actions/runs/{number}")
    page = call.html_url(f"/actions/runs/{number}")
    return 200, {"workflow_run_id": number, "run_url": address, "html_url": page}


def repository_dispatch(call: Call) -> Reply:
    """Send an event to the workflows that it starts. GitHub accepts any type, even one that starts no workflow."""
    if not re.fullmatch(r".{1,100}", call.body.get("event_type") or ""):
        raise Refusal(422, "Invalid request. event_type is missing or longer than 100 characters.")
    if call.state.host:
        call.state.host.on_repository_dispatch(call.body["event_type"], call.token)
    return 204, None


def check_inputs(workflow: str, given: Mapping[str, Any]) -> None:
    """Refuse unknown, missing and invalid inputs of a workflow."""
    events = triggers(workflow)
    if "workflow_dispatch" not in events:
        raise Refusal(422, "Workflow does not have 'workflow_dispatch' trigger")
    known = events["workflow_dispatch"].get("inputs") or {}
    if more := sorted(given.keys() - known.keys()):
        raise Refusal(422, f"Unexpected inputs provided: {more}")
    for name, told in known.items():
        if told.get("required") and not given.get(name):
            raise Refusal(422, f"Required input '{name}' not provided")
        if name in given and given[name] not in told.get("options", [given[name]]):
            raise Refusal(422, f"Provided value '{given[name]}' for input '{name}' not in the list of allowed values")


def _name(call: Call) -> str:
    """Return the file name of the workflow that the path of a call identifies by name or number."""
    name: str = call.parameters["name"]
    known = sorted(call.state.workflows)
    if known and name.isdecimal() and int(name) < len(known):
        return known[int(name)]
    if known and name not in known:
        raise Refusal(404, "Not Found")
    return name


def _known(call: Call) -> dict[str, Any]:
    run = call.state.runs.get(call.parameters["number"])
    if run is None:
        raise Refusal(404, "Not Found")
    return run


def _run(call: Call, run: Mapping[str, Any]) -> dict[str, Any]:
    below = f"/actions/runs/{run['id']}"
    addresses = {"url": "", "rerun_url": "/rerun", "artifacts_url": "/artifacts"}
    told = {name: call.url(f"{below}{end}") for name, end in addresses.items()}
    return {**run, **told, "html_url": call.html_url(below)}


ROUTES: list[BaseRoute] = [
    route("GET", "/actions/workflows/{name}", get_workflow),
    route("GET", "/actions/workflows/{name}/runs", list_runs),
    route("POST", "/actions/workflows/{name}/dispatches", dispatch),
    route("GET", "/actions/runs/{number:int}", get_run),
    route("GET", "/actions/runs/{number:int}/artifacts", list_artifacts),
    route("GET", "/actions/artifacts/{number:int}/{name}/zip", download_artifact),
    route("POST", "/actions/runs/{number:int}/cancel", cancel),
    route("POST", "/actions/runs/{number:int}/rerun", rerun),
    route("POST", "/dispatches", repository_dispatch),
]
