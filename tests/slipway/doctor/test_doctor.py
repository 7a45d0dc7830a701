"""The verb as a whole: exit codes, output, time limits, and masked secrets."""

import io
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.fakes.github_server import Failure, GitHub
from slipway.doctor import runner
from slipway.doctor.context import Fork, read_fork
from slipway.doctor.redact import masked, secrets
from slipway.doctor.result import Finding, ok
from slipway.doctor.runner import CHECKS, examine
from tests.slipway.conftest import Repository, Result
from tests.slipway.doctor.conftest import EVERY, VARIABLES, Answer, answering

Run = Callable[..., Result]


@pytest.mark.usefixtures("fork")
def test_it_exits_0_if_nothing_is_missing(slipway: Run) -> None:
    result = slipway("doctor")
    assert (result.code, result.err) == (0, ""), result.out
    for name in EVERY.keys() - {"programs", "release.urls"}:
        assert f"{name}  ok  " in result.out, result.out


def test_it_exits_1_in_a_fresh_clone_and_prints_each_fix(origin: Repository, tmp_path: Path) -> None:
    clone = origin.clone(tmp_path / "clone")
    for variable in VARIABLES:
        clone.environment.pop(variable, None)
    result = clone.run("slipway", "doctor")
    assert (result.code, result.err) == (1, ""), result.out + result.err
    assert re.search(r"image  MISSING   `release.image` is null, .*\n +Edit `image` in params.yaml, line ", result.out)
    assert re.search(r"origin  MISSING   .*\n +\$ git remote set-url origin https://github.com/OWNER/NAME", result.out)
    for name in EVERY:
        assert re.search(rf"\b{name}(  |, |:)", result.out), name


def test_equal_findings_are_one_row(fork: Repository, slipway: Run) -> None:
    fork.must("git", "remote", "remove", "origin")
    printed = slipway("doctor").out
    assert "9 checks  unknown   repository, Actions, schedules, label, ruleset, App, environments, secr" in printed
    assert printed.count("Not checked, because origin is not a repository at https://") == 1


def test_no_fix_needs_a_line_of_perl_or_sed() -> None:
    for file in Path(runner.__file__).parent.glob("*.py"):
        assert not re.search(r"\b(perl|sed|awk) -|python3? -c", file.read_text()), file


def test_it_exits_2_outside_of_a_repository(tmp_path: Path, slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = slipway("doctor")
    assert (result.code, "change to your clone" in result.err) == (2, True), result.err


PLANTED = {
    "GITHUB_TOKEN": "ghs_hiddenTokenOfGitHub0123456789",
    "AWS_ACCESS_KEY_ID": "AKIAHIDDENHIDDEN1234",
    "AWS_SECRET_ACCESS_KEY": "hidden/AWS+secret+0123456789",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=houses;AccountKey=hiddenAzureKey==;EndpointSuffix=core",
    "MLFLOW_TRACKING_PASSWORD": "hidden-mlflow-login",
    "KUBE_CONFIG": "apiVersion: v1\nusers:\n- user:\n    token: hidden-token-of-the-cluster-in-a-long-file\n" * 3,
    "SLIPWAY_APP_KEY": "-----BEGIN KEY-----\nhiddenhiddenhiddenhidden\n-----END KEY-----",
}


def planted_fork(fork: Repository, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a secret in every place that can have one. `broken` is the host of all servers."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hidden%40mlflow@{broken}/?sig=hidden-signature")
    monkeypatch.setenv("DOCKER_HOST", f"tcp://me:hidden-docker@{broken}")
    monkeypatch.setenv("KUBECONFIG", "/nowhere/hidden-kubeconfig")
    fork.must("git", "remote", "set-url", "origin", f"https://me:hidden-git@{broken}/team/houses?token=hidden-query")
    url = f"http://me:hidden-dvc/p@ss@{broken}/remote?X-Amz-Signature=hidden-presigned"
    fork.must("dvc", "remote", "modify", "--local", "sample", "url", url)
    fork.must("dvc", "remote", "modify", "--local", "sample", "password", "hidden-remote-password")
    source = f"http://me:hidden-source@{broken}/new?sv=hidden-sas-value"
    fork.edit("params.yaml", "source: sample/source", f"source: '{source}'")
    fork.edit("params.yaml", "urls: {}", f"urls: {{production: 'http://{broken}'}}")
    fork.edit("params.yaml", "deploy: agent", "deploy: kubectl")
    (fork.path / "kustomize/overlays/staging/extra.yaml").write_text(
        "url: https://me:hidden-extra@houses.example.com/x"
    )
    for file in ("data.dvc", "champion.dvc"):
        (fork.path / file).write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("status", [0, 401, 500])
def test_it_never_prints_a_secret(
    fork: Repository, github: GitHub, slipway: Run, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The servers do not answer (0), refuse, or repeat a secret of the request."""
    with answering(Answer(status or 500, {"message": f"no, {PLANTED['GITHUB_TOKEN']}"})) as url:
        planted_fork(fork, url.removeprefix("http://") if status else "127.0.0.1:9", monkeypatch)
        if status:
            monkeypatch.setenv("GITHUB_API_URL", url)
            address = github.url.replace("://", "://me:hidden-git@")
            fork.must("git", "remote", "set-url", "origin", f"{address}/team/houses")
        result = slipway("doctor")
        quiet = subprocess.run(
            [sys.executable, "-W", "always", "-m", "slipway", "--debug", "doctor"],
            env={**fork.environment, **os.environ, "PYTHONPATH": fork.environment["PYTHONPATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (result.code, quiet.returncode) == (1, 1), result.out + quiet.stderr
    printed = result.out + result.err + quiet.stdout + quiet.stderr
    assert "hidden" not in printed.lower()
    assert "p@ss" not in printed
    assert printed.count("***") > 5
    assert (f"GitHub answers {status} no, ***." in result.out) is bool(status), result.out
    assert result.err == ""


@pytest.mark.usefixtures("fork")
def test_logs_and_warnings_of_libraries_are_suppressed(slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They contain addresses, and are not masked."""
    logged = io.StringIO()

    def chatters(_: Fork) -> Finding:
        logging.getLogger("urllib3").error("hidden in a log")
        warnings.warn("hidden in a warning", stacklevel=1)
        return ok("It is fine.")

    handler = logging.StreamHandler(logged)
    logging.getLogger().addHandler(handler)
    monkeypatch.setitem(CHECKS["This machine"], "programs", chatters)
    with warnings.catch_warnings(record=True) as warned:
        assert "It is fine." in slipway("doctor").out
    logging.getLogger().removeHandler(handler)
    assert (logged.getvalue(), warned) == ("", [])
    assert logging.root.manager.disable == logging.NOTSET


def test_the_error_of_a_check_is_not_printed(fork: Repository) -> None:
    def stops(_: Fork) -> Finding:
        raise RuntimeError("hidden")

    assert fork
    found = examine(read_fork(os.environ), {"one": stops}, 5)["one"]
    assert (found.state, "hidden" in found.sentence) == ("unknown", False)


def test_secrets_are_masked_in_every_form(fork: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fork
    monkeypatch.setenv("SOME_PASSWORD", "correct-horse")
    known = secrets(read_fork(os.environ))
    for text in (
        "fatal: https://me:abc@host/x",
        "fatal: https://me:a/b@c@host/x",
        "https://abc@host/x",
        "GET https://host/x?X-Amz-Signature=abc&y=1 failed",
        "password=abc",
        "'token': 'abc'",
        "AccountKey=abc;x",
        "Authorization: Bearer abc",
        "ghp_abcabcabcabcabcabc",
        "eyJabc.eyJabc.abc",
        "correct-horse",
    ):
        shown = masked(text, known)
        assert "abc" not in shown, shown
        assert "horse" not in shown
        assert "***" in shown
    for text in ("dvc remote modify sample url ADDRESS", "image@sha256:abc", "git@github.com:team/houses.git"):
        assert masked(text, known) == text


def test_checks_that_hang_are_reported_as_unknown(fork: Repository) -> None:
    over = threading.Event()

    def hangs(_: Fork) -> Finding:
        over.wait(60)
        raise AssertionError

    assert fork
    found = examine(read_fork(os.environ), {"one": hangs, "two": hangs, "source": EVERY["source"]}, seconds=1.0)
    over.set()
    assert [each.state for each in found.values()] == ["unknown", "unknown", "ok"]
    assert found["one"].sentence == "Not checked, because it took more than 1 seconds."


IMPATIENT = "from slipway.doctor import runner; runner.CHECKS_TIMEOUT_SECONDS = 2; from slipway.cli import main; main()"


def test_the_process_ends_in_time_if_no_server_answers(
    fork: Repository, github: GitHub, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process must not wait for threads that hang."""
    github.state.failures.append(Failure("hang"))
    answer = Answer(seconds=60)
    with answering(answer) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        fork.edit("params.yaml", "source: sample/source", f"source: {url}/new")
        fork.edit("params.yaml", f"image: {registry}", f"image: {url.removeprefix('http://')}")
        fork.must("dvc", "remote", "modify", "sample", "url", f"{url}/remote")
        result = fork.run(sys.executable, "-c", IMPATIENT, "doctor", **os.environ)
        assert answer.sent == 0
    assert result.code in (0, 1), result.err
    assert "Not checked, because it took more than 2 seconds." in result.out
