"""The tests find out what a job of GitHub forbids or sets. end_to_end/test_hosted_runner.py runs them in such a job."""

import os
from pathlib import Path

import pytest

from tests.slipway import conftest
from tests.slipway.end_to_end import test_demo
from tests.slipway.end_to_end.image import engine
from tests.slipway.end_to_end.test_hosted_runner import variables


def test_the_variables_of_a_job_do_not_reach_the_tested_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    for name, value in variables("pull_request", Path("/job")).items() | {("ACTIONS_CACHE_URL", "x")}:
        monkeypatch.setenv(name, value)
    conftest.forget_surroundings()
    assert dict(os.environ) == before | {"HOME": "/", "CI": "true"}


def test_an_ordinary_user_tests_with_docker_if_its_socket_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman of such a user may not limit the memory of a container on GitHub's runners."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(os, "access", lambda path, _: path == engine.DOCKER)
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    assert engine.running_engine() == "unix:///var/run/docker.sock"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert engine.running_engine() is None


def test_the_demo_runs_with_a_network_where_namespaces_are_forbidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forbidden = tmp_path / "unshare"
    forbidden.write_text(
        "#!/bin/sh\necho 'unshare: write failed /proc/self/uid_map: Operation not permitted' >&2\nexit 1\n"
    )
    forbidden.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert test_demo.without_network() == []
