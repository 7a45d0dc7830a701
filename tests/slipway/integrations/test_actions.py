"""Slipway reads events of GitHub Actions, and writes outputs and summaries."""

import json
from pathlib import Path

import pytest

from slipway.errors import InputError
from slipway.integrations import actions

RUN = {"id": 42, "head_sha": "a1" * 20, "head_branch": "change", "head_repository": {"full_name": "team/houses"}}


def environ(tmp_path: Path, payload: object) -> dict[str, str]:
    path = tmp_path / "event.json"
    path.write_text(payload if isinstance(payload, str) else json.dumps(payload))
    return {"GITHUB_EVENT_PATH": str(path)}


def test_the_server_is_github_com_unless_it_is_named() -> None:
    assert actions.server_url({}) == actions.server_url({"GITHUB_SERVER_URL": ""}) == "https://github.com"
    assert actions.server_url({"GITHUB_SERVER_URL": "https://ghe.example"}) == "https://ghe.example"


def test_run_url_returns_the_address_of_a_run() -> None:
    variables = {"GITHUB_REPOSITORY": "team/houses", "GITHUB_RUN_ID": "7"}
    assert actions.run_url(variables) == "https://github.com/team/houses/actions/runs/7"
    assert actions.run_url(variables, 42) == "https://github.com/team/houses/actions/runs/42"


def test_outputs_and_summaries_are_appended(tmp_path: Path) -> None:
    variables = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    (tmp_path / "output").write_text("before=1\n")
    actions.write_outputs({"model": "true", "image": "false"}, variables)
    actions.append_summary("# One\n", variables)
    actions.append_summary("# Two\n", variables)
    assert (tmp_path / "output").read_text() == "before=1\nmodel=true\nimage=false\n"
    assert (tmp_path / "summary").read_text() == "# One\n# Two\n"


def test_outside_of_a_workflow_nothing_is_written() -> None:
    actions.write_outputs({"model": "true"}, {})
    actions.append_summary("# One\n", {})


def test_the_completed_run_is_read(tmp_path: Path) -> None:
    run = actions.read_workflow_run(environ(tmp_path, {"workflow_run": RUN | {"conclusion": "success"}}))
    assert (run.id, run.conclusion, run.head_branch) == (42, "success", "change")
    assert run.head_repository == "team/houses"


def test_a_run_may_have_no_branch(tmp_path: Path) -> None:
    run = actions.read_workflow_run(environ(tmp_path, {"workflow_run": RUN | {"head_branch": None}}))
    assert run.head_branch is None


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        ("", "the file"),
        ({}, "workflow_run.id"),
        ({"workflow_run": RUN | {"head_repository": None}}, "workflow_run.head_repository.full_name"),
        ({"workflow_run": RUN | {"head_sha": "main"}}, "workflow_run.head_sha"),
    ],
)
def test_the_payload_of_another_event_is_refused(tmp_path: Path, payload: object, where: str) -> None:
    with pytest.raises(InputError) as refused:
        actions.read_workflow_run(environ(tmp_path, payload))
    assert str(refused.value) == (
        f"GITHUB_EVENT_PATH: {where} is not valid for the event 'workflow_run'; start this workflow with that event."
    )


def test_a_missing_event_is_an_error(tmp_path: Path) -> None:
    for variables in ({}, {"GITHUB_EVENT_PATH": str(tmp_path / "none")}):
        with pytest.raises(InputError, match="GITHUB_EVENT_PATH does not name the file of an event 'workflow_run'"):
            actions.read_workflow_run(variables)
