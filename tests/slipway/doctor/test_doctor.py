"""The verb as a whole: how it exits, how long it takes, and that it never prints a secret."""

import io
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.fakes.github_server import Failure, GitHub
from slipway.doctor.context import Fork, read_fork
from slipway.doctor.redact import masked, secrets
from slipway.doctor.result import Finding, holds
from slipway.doctor.runner import CHECKS, examine
from tests.slipway.conftest import Repository, Result
from tests.slipway.doctor.answers import Answer, answering
from tests.slipway.doctor.conftest import EVERY, VARIABLES, edited

Run = Callable[..., Result]


@pytest.mark.usefixtures("fork")
def test_all_is_well(slipway: Run) -> None:
    result = slipway("doctor")
    assert result.code == 0, result.out
    assert "0 missing" in result.out
    assert result.err == ""


def test_a_fresh_clone(origin: Repository, tmp_path: Path) -> None:
    """It exits 1, and each command that is printed is one line, below what it mends."""
    clone = origin.clone(tmp_path / "clone")
    for variable in VARIABLES:
        clone.environment.pop(variable, None)
    result = clone.run("slipway", "doctor")
    assert result.code == 1, result.out + result.err
    assert "MISSING  params.yaml: `release.image` is null, so merging ships nothing.\n" in result.out
    assert "$ perl -pi -e 's|^  image: null|  image: ghcr.io/OWNER/NAME|' params.yaml\n" in result.out
    for name in EVERY:
        assert f"{name}  " in result.out, name
    assert result.err == ""


def test_outside_of_a_repository(tmp_path: Path, slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = slipway("doctor")
    assert (result.code, "params.yaml is missing in" in result.out) == (1, True), result.out
    assert result.err == ""


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
    """A secret in every place that can have one, and nothing that works; `broken` is the host of all servers."""
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
    edited(fork, "params.yaml", "source: sample/source", f"source: '{source}'")
    edited(fork, "params.yaml", "urls: {}", f"urls: {{production: 'http://{broken}'}}")
    edited(fork, "params.yaml", "deploy: agent", "deploy: kubectl")
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
    """Whether servers are down (0), refuse, or quote what they were asked with."""
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
    for secret in PLANTED.values():
        assert secret not in printed
    assert result.err == ""


@pytest.mark.usefixtures("fork")
def test_libraries_say_nothing(slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their logs and warnings quote addresses, and are not masked."""
    logged = io.StringIO()

    def chatters(_: Fork) -> Finding:
        logging.getLogger("urllib3").error("hidden in a log")
        warnings.warn("hidden in a warning", stacklevel=1)
        return holds("It is fine.")

    handler = logging.StreamHandler(logged)
    logging.getLogger().addHandler(handler)
    monkeypatch.setitem(CHECKS["This machine"], "make", chatters)
    with warnings.catch_warnings(record=True) as warned:
        assert "It is fine." in slipway("doctor").out
    logging.getLogger().removeHandler(handler)
    assert (logged.getvalue(), warned) == ("", [])
    assert logging.root.manager.disable == logging.NOTSET


def test_what_stops_a_check_is_not_quoted(fork: Repository) -> None:
    def stops(_: Fork) -> Finding:
        raise RuntimeError("hidden")

    assert fork
    found = examine(read_fork(os.environ), {"one": stops}, 5)["one"]
    assert (found.name, found.state, "hidden" in found.sentence) == ("one", "unknown", False)


def test_secrets_are_masked_wherever_they_stand(fork: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_servers_that_hang_are_left_alone(fork: Repository) -> None:
    """Two of them, one within a library that waits for a minute."""
    over = threading.Event()

    def hangs(_: Fork) -> Finding:
        over.wait(60)
        raise AssertionError

    assert fork
    began = time.monotonic()
    found = examine(read_fork(os.environ), {"one": hangs, "two": hangs, "make": EVERY["make"]}, seconds=1.0)
    over.set()
    assert time.monotonic() - began < 5
    assert [each.state for each in found.values()] == ["unknown", "unknown", "holds"]
    assert found["one"].sentence == "Not seen, as it took more than 1 seconds."


IMPATIENT = "from slipway.doctor import runner; runner.CHECKS_TIMEOUT_SECONDS = 2; from slipway.cli import main; main()"


def test_the_whole_ends_in_time_where_nothing_answers(
    fork: Repository, github: GitHub, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process, which must not wait for the threads that it leaves alone."""
    github.state.failures.append(Failure("hang"))
    with answering(Answer(seconds=60)) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        edited(fork, "params.yaml", "source: sample/source", f"source: {url}/new")
        edited(fork, "params.yaml", f"image: {registry}", f"image: {url.removeprefix('http://')}")
        fork.must("dvc", "remote", "modify", "sample", "url", f"{url}/remote")
        began = time.monotonic()
        result = fork.run(sys.executable, "-c", IMPATIENT, "doctor", **os.environ)
        assert time.monotonic() - began < 12
    assert result.code in (0, 1), result.err
    assert "Not seen, as it took more than 2 seconds." in result.out
