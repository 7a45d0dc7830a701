"""The charts on the branch `reports`, pushed to a local bare repository."""

import base64
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.fakes.github_server import GitHub
from slipway.errors import CheckFailed
from slipway.integrations import git as git_commits
from slipway.review.chart_branch import push_charts

HEADS = ("a1" * 20, "b2" * 20)
CHARTS = {"loss-light.svg": b"<svg>light</svg>", "loss-dark.svg": b"<svg>dark</svg>"}


def git(at: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=at, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    path = tmp_path / "remote.git"
    path.mkdir()
    git(path, "init", "--quiet", "--bare")
    return path


@pytest.fixture
def environ(remote: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "GITHUB_TOKEN": "very-secret",
        "GITHUB_REPOSITORY": "team/houses",
        "SLIPWAY_REPORTS_REMOTE": remote.as_uri(),
    }


def files(remote: Path) -> list[str]:
    return git(remote, "ls-tree", "-r", "--name-only", "reports").splitlines()


def test_the_first_charts_create_the_branch(remote: Path, environ: dict[str, str]) -> None:
    address = push_charts(CHARTS, 7, HEADS[0], environ)
    assert address == "https://github.com/team/houses/raw/reports/7/a1a1a1a1a1a1"
    assert files(remote) == ["7/a1a1a1a1a1a1/loss-dark.svg", "7/a1a1a1a1a1a1/loss-light.svg"]
    assert git(remote, "show", "reports:7/a1a1a1a1a1a1/loss-dark.svg") == "<svg>dark</svg>"
    assert git(remote, "log", "--format=%an %s", "reports") == "github-actions[bot] Add the charts of 7/a1a1a1a1a1a1"


def test_the_history_of_the_branch_keeps_each_judged_model(remote: Path, environ: dict[str, str]) -> None:
    for number, head in ((7, HEADS[0]), (7, HEADS[1]), (8, HEADS[1])):
        push_charts(CHARTS, number, head, environ, f"Judged: {number}")
    assert git(remote, "log", "--format=%b", "reports").split("\n") == ["Judged: 8", "Judged: 7", "Judged: 7"]


@pytest.mark.parametrize("allow_filter", ["true", "false"])
def test_new_charts_replace_those_of_the_same_pull_request_only(
    remote: Path, environ: dict[str, str], allow_filter: str
) -> None:
    git(remote, "config", "uploadpack.allowFilter", allow_filter)  # true at GitHub
    for number, head in ((7, HEADS[0]), (71, HEADS[0]), (7, HEADS[1])):
        push_charts({"loss-light.svg": f"{number} {head}".encode()}, number, head, environ)
    assert files(remote) == ["7/b2b2b2b2b2b2/loss-light.svg", "71/a1a1a1a1a1a1/loss-light.svg"]
    assert git(remote, "show", "reports:71/a1a1a1a1a1a1/loss-light.svg") == f"71 {HEADS[0]}"
    assert git(remote, "rev-list", "--count", "reports") == "3"


def test_the_same_charts_can_be_pushed_twice(remote: Path, environ: dict[str, str]) -> None:
    assert push_charts(CHARTS, 7, HEADS[0], environ) == push_charts(CHARTS, 7, HEADS[0], environ)
    assert len(files(remote)) == 2


def test_other_files_on_the_branch_stay_and_links_are_not_followed(
    remote: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    """A user who may push to the branch can replace a directory there by a link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    work = tmp_path / "work"
    git(tmp_path, "init", "--quiet", str(work))
    (work / "7").symlink_to(outside)
    (work / "README.md").write_text("kept")
    git(work, "add", ".")
    git(work, "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "Link")
    git(work, "push", "--quiet", str(remote), "HEAD:refs/heads/reports")
    push_charts(CHARTS, 7, HEADS[0], environ)
    assert list(outside.iterdir()) == []
    assert files(remote) == ["7/a1a1a1a1a1a1/loss-dark.svg", "7/a1a1a1a1a1a1/loss-light.svg", "README.md"]


def test_simultaneous_pushes_all_arrive(remote: Path, environ: dict[str, str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: push_charts(CHARTS, number, HEADS[0], environ), (1, 2, 3)))
    assert {name.split("/")[0] for name in files(remote)} == {"1", "2", "3"}


def test_a_refused_push_is_reported(remote: Path, environ: dict[str, str]) -> None:
    hook = remote / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(CheckFailed, match=r"^The comment has no charts: A rule .* protects reports .*hook declined"):
        push_charts(CHARTS, 7, HEADS[0], environ)


def test_a_missing_remote_is_reported(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"^The comment has no charts: pushing to reports failed \("):
        push_charts(CHARTS, 7, HEADS[0], environ | {"SLIPWAY_REPORTS_REMOTE": str(tmp_path / "nowhere")})


def test_a_password_in_the_address_never_reaches_a_comment(environ: dict[str, str]) -> None:
    with pytest.raises(CheckFailed, match="without a user name") as refused:
        push_charts(CHARTS, 7, HEADS[0], environ | {"SLIPWAY_REPORTS_REMOTE": "https://me:hunter2@localhost/x/y.git"})
    assert "hunter2" not in str(refused.value)


def test_git_that_hangs_is_killed(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    slow.chmod(0o755)
    monkeypatch.setattr(git_commits, "CHARTS_GIT_TIMEOUT_SECONDS", 0.5)
    with pytest.raises(CheckFailed, match=r"did not end within 0\.5 seconds"):
        push_charts(CHARTS, 7, HEADS[0], environ | {"PATH": str(slow.parent)})


def test_git_sends_the_token_to_github_only(github: GitHub, environ: dict[str, str]) -> None:
    environ |= github.variables() | {"GIT_SSL_CAINFO": str(github.authority)}
    del environ["SLIPWAY_REPORTS_REMOTE"]
    with pytest.raises(CheckFailed, match="no charts") as refused:  # the server does not have this repository
        push_charts(CHARTS, 7, HEADS[0], environ)
    credentials = base64.b64encode(f"x-access-token:{github.state.token}".encode()).decode()
    assert github.state.requests[0]["path"] == "/team/houses.git/info/refs"
    assert github.state.requests[0]["authorization"] == f"Basic {credentials}"
    assert github.state.token not in str(refused.value)
    assert credentials not in str(refused.value)

    github.state.requests.clear()
    elsewhere = {
        "SLIPWAY_REPORTS_REMOTE": f"{github.url}/a/b.git",
        "GITHUB_SERVER_URL": "https://elsewhere.invalid",
    }
    with pytest.raises(CheckFailed):
        push_charts(CHARTS, 7, HEADS[0], environ | elsewhere)
    assert {each["authorization"] for each in github.state.requests} == {""}
