"""`slipway init`: what must change changes, whole or not at all, and once."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from slipway.fork import init
from tests.slipway.conftest import Repository, Result
from tests.slipway.manifests.rendering import kustomize

Run = Callable[..., Result]
URL = "https://github.com/acme/wine"
WINE = init.Identity("wine", URL, "ghcr.io/acme/wine", "wine-staging.example.com", "wine.example.com")
EDITED = {file for file, *_ in init.places(WINE)} | {str(init.OWNERS), str(init.DASHBOARD), "NOTICE"}
EMPTIED = {
    "champion.dvc",
    "data.dvc",
    "dvc.lock",
    *(f"metrics/{name}.json" for name in ("evaluation", "release", "verdict")),
}


@pytest.fixture
def fork(origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A clone of acme/wine, which is still the template; this process is there, and has no terminal."""
    fork = origin.clone(tmp_path / "fork")
    fork.must("git", "remote", "set-url", "origin", "git@github.com:acme/wine.git")
    monkeypatch.chdir(fork.path)
    return fork


def changed(fork: Repository) -> set[str]:
    fork.must("git", "add", "--all")
    return set(fork.must("git", "diff", "--cached", "--no-renames", "--name-only").splitlines())


def said(fork: Repository, file: str, *keys: str | int) -> object:
    value = yaml.safe_load((fork.path / file).read_text())
    for key in keys:
        value = value[key]
    return value


def test_what_must_change_changes_and_nothing_else(fork: Repository, slipway: Run) -> None:
    done = slipway("init")
    assert (done.code, "wine: 21 files written, 3" in done.out) == (0, True), done
    for file, keys, value, _ in init.places(WINE):
        assert said(fork, file, *keys) == value, (file, keys)
    touched = changed(fork)
    assert {file for file in touched if not file.startswith("sample/")} == EDITED | EMPTIED
    lines = fork.must("git", "diff", "--cached", "-U0", "params.yaml").splitlines()
    assert [line.split("#")[0].strip("+ ") for line in lines if re.match(r"\+ ", line)] == [
        "experiment: wine",
        'image: "ghcr.io/acme/wine"',
        'source: ""',
    ]
    assert fork.run("git", "grep", "-nE", "house-prices|your-team|YOUR-ORG", "--", "kustomize", ".github").code == 1
    assert set(fork.must("git", "ls-files", "sample").splitlines()) == {
        "sample/remote/files/md5/d7/51713988987e9331980363e24189ce.dir"
    }
    shutil.rmtree("data")
    assert "A  data/" not in fork.must("dvc", "pull", "data.dvc", "champion.dvc")
    assert [*Path("data").iterdir(), *Path("champion").iterdir()] == []
    for step in ("git add --all", "src/model/", "dvc add data && dvc repro", "a pull request"):
        assert step in done.out


def test_the_overlays_serve_the_host_names(fork: Repository, slipway: Run) -> None:
    assert slipway("init", "--production-host", "wine.acme.example").code == 0
    for name, host in (("staging", "wine-staging.example.com"), ("production", "wine.acme.example")):
        file = fork.path / f"kustomize/overlays/{name}/kustomization.yaml"
        file.write_text(file.read_text().replace("# - ../../components/ingress", "- ../../components/ingress"))
        (route,) = [each for each in yaml.safe_load_all(kustomize(file.parent)) if each["kind"] == "HTTPRoute"]
        assert route["spec"]["hostnames"] == [host]


def test_a_second_run_changes_nothing(fork: Repository, slipway: Run) -> None:
    for flags in ([], ["--name", "cellar", "--staging-host", "try.acme.example"]):
        assert slipway("init", *flags).code == 0
        once = fork.must("git", "diff"), fork.must("git", "status", "--porcelain")
        for again in (flags, []):
            assert "nothing to change" in slipway("init", *again).out
            assert (fork.must("git", "diff"), fork.must("git", "status", "--porcelain")) == once
        fork.commit("Adopt")
        assert "nothing to change" in slipway("init").out
        assert fork.must("git", "status", "--porcelain") == ""
    assert said(fork, "kustomize/overlays/staging/kustomization.yaml", "namespace") == "cellar-staging"
    assert said(fork, "params.yaml", "release", "image") == WINE.image  # no flag named it


def test_what_a_person_has_changed_stays_unless_a_flag_names_it(fork: Repository, slipway: Run) -> None:
    overlay, project = "kustomize/overlays/staging/kustomization.yaml", "kustomize/agents/argocd/project.yaml"
    fork.edit(overlay, "namespace: house-prices-staging", "namespace: 'trial' # ours")
    fork.edit(project, "description: The house-prices model, as its repository says", "description: Ours")
    fork.edit("params.yaml", "source: sample/source", "source: s3://acme/wine")
    shutil.rmtree(fork.path / "kustomize/agents/flux")
    fork.commit("By hand")
    assert slipway("init").code == 0
    assert said(fork, overlay, "namespace") == "trial"
    assert (said(fork, project, "spec", "description"), said(fork, project, "metadata", "name")) == ("Ours", "wine")
    assert said(fork, "params.yaml", "ingest", "source") == "s3://acme/wine"
    fork.commit("Adopt")
    assert slipway("init", "--name", "cellar").code == 0
    assert "namespace: 'cellar-staging' # ours\n" in (fork.path / overlay).read_text()


def test_data_of_ones_own_is_never_taken_away(fork: Repository, slipway: Run) -> None:
    Path("data").mkdir()
    Path("data/mine.csv").write_text("a\n1\n")
    refused = slipway("init")
    assert (refused.code, "data/mine.csv is none of the sample's" in refused.err) == (1, True)
    assert fork.must("git", "status", "--porcelain") == ""
    fork.must("dvc", "add", "--quiet", "data")
    fork.commit("My data, where the sample's was")
    assert slipway("init").code == 0
    assert changed(fork) == EDITED - {"NOTICE"}
    assert Path("data/mine.csv").exists()


def test_what_git_does_not_have_is_not_changed(fork: Repository, slipway: Run) -> None:
    fork.edit("kustomize/agents/flux/source.yaml", "interval: 1m", "interval: 2m")
    before = fork.must("git", "status", "--porcelain")
    refused = slipway("init")
    assert (refused.code, "kustomize/agents/flux/source.yaml is not as in the last commit" in refused.err) == (1, True)
    assert fork.must("git", "status", "--porcelain") == before


LATER = ("data", "kustomize/overlays/production/host.yaml", "data.dvc")


def test_one_that_was_killed_goes_on(fork: Repository, slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slipway("init").code == 0
    changed(fork)
    whole = fork.must("git", "write-tree").strip()
    fork.must("git", "reset", "--quiet", "--hard")
    replacing, killing = init.atomic.replacing, [*map(Path, LATER)]

    def killed(path: Path) -> object:
        if path in killing:
            raise KeyboardInterrupt
        return replacing(path)

    monkeypatch.setattr(init.atomic, "replacing", killed)
    while killing:
        with pytest.raises(KeyboardInterrupt):
            init.apply(init.plan(WINE, frozenset()))
        killing.pop(0)
    assert slipway("init").code == 0
    changed(fork)
    assert fork.must("git", "diff", "--stat", whole, fork.must("git", "write-tree").strip()) == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--name", "Wine"], "--name: 'Wine' cannot name a namespace of Kubernetes; use at most 54 small letters"),
        (["--name", "w" * 55], "cannot name a namespace"),
        (["--name", ""], "cannot name a namespace"),
        (["--image", "wine"], "--image: 'wine' is not where an image can be pushed"),
        (["--image", "ghcr.io/acme/wine:1"], "is not where an image can be pushed"),
        (["--image", "ghcr.io/Acme/wine"], "is not where an image can be pushed"),
        (["--staging-host", "wine_1.example.com"], "--staging-host: 'wine_1.example.com' is no host name (RFC 1123)"),
        (["--production-host", "https://wine.example.com"], "is no host name"),
        (["--production-host", "w" * 64 + ".com"], "is no host name"),
        (["--production-host", "wine-staging.example.com"], "is production's; name another one"),
        (["--repository", ""], "The remote `origin` is on no host, so nothing says what agents follow"),
        (["--repository", "acme/wine"], "--repository: 'acme/wine' is no address of a repository"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_touched(
    fork: Repository, slipway: Run, flags: list[str], words: str
) -> None:
    refused = slipway("init", *flags)
    assert (refused.code, words in refused.err, refused.err.count("\n")) == (2, True, 1), refused.err
    assert fork.must("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:acme/wine.git", URL),
        ("ssh://git@github.com/acme/wine", URL),
        ("https://token@github.com/acme/wine.git", URL),
        ("https://git.acme.example/a/team/wine/", "https://git.acme.example/a/team/wine"),
        ("../wine", None),
    ],
)
def test_the_address_is_read_from_origin(fork: Repository, remote: str, address: str | None) -> None:
    fork.must("git", "remote", "set-url", "origin", remote)
    assert init.origin() == address


def test_in_a_terminal_it_asks(fork: Repository) -> None:
    """With what it would take; an answer counts, and so does none."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "slipway", "init", "--image", "ghcr.io/acme/cellar"]
    with subprocess.Popen(
        command, cwd=fork.path, env=fork.environment, stdin=its, stdout=subprocess.PIPE, text=True
    ) as process:
        os.write(ours, b"\ncellar\ntry.acme.example\n\n")
        printed = process.communicate()[0]
    assert process.returncode == 0, printed
    for question in (f"repository [{URL}]", "name [wine]", "host name of staging [cellar-staging.example.com]"):
        assert question in printed
    assert said(fork, "kustomize/overlays/staging/host.yaml", "spec", "hostnames", 0) == "try.acme.example"
    assert said(fork, "params.yaml", "record", "experiment") == "cellar"
    assert said(fork, "params.yaml", "release", "image") == "ghcr.io/acme/cellar"


@pytest.mark.usefixtures("fork")
def test_the_nightly_cluster_is_told_whether_there_is_a_champion(
    slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    for verb in ("status", "adopt", "status"):
        assert slipway(verb).code == 0
    assert (tmp_path / "output").read_text() == "champion=true\nchampion=false\n"


@pytest.mark.usefixtures("fork")
def test_without_the_sample_other_verbs_say_what_to_do(slipway: Run) -> None:
    assert slipway("init").code == 0
    for verb, code, words in (
        ("ingest", 2, "`ingest.source` is empty; name the folder where deliveries arrive"),
        ("demo", 2, "as `slipway init` takes them"),
        ("monitor", 0, "nothing to do: no model is live yet"),
        ("propose", 0, "nothing to do: params.yaml does not say where deliveries arrive"),
        ("candidate", 0, "nothing to release: data.dvc has no delivery yet"),
    ):
        done = slipway(verb)
        assert (done.code, words in done.out + done.err) == (code, True), (verb, done)
