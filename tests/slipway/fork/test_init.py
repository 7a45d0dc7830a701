"""`slipway init`: names are set, the template's own files go, and nothing of a person is lost."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from slipway.fork import identity, init
from slipway.fork.record import RECORD, Record
from tests.slipway.conftest import ROOT, Repository, Result
from tests.slipway.manifests.rendering import kustomize

Run = Callable[..., Result]
URL = "https://github.com/acme/wine"
WINE = identity.Identity("wine", URL, "ghcr.io/acme/wine", "wine-staging.example.com", "wine.example.com")
NAMED = {*identity.places(WINE), str(init.OWNERS)}
EMPTIED = {
    "champion.dvc",
    "data.dvc",
    "dvc.lock",
    *(f"metrics/{name}.json" for name in ("evaluation", "release", "verdict")),
}
PAGES = {"NOTICE", "README.md"}
GONE = ("benchmarks/", "demo/", "examples/", "docs/decisions/", "sample/", "tests/slipway/")


@pytest.fixture
def fork(origin: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A clone of acme/wine, still the template. It is the working directory, and there is no terminal."""
    fork = origin.clone(tmp_path / "fork")
    fork.must("git", "remote", "set-url", "origin", "git@github.com:acme/wine.git")
    monkeypatch.chdir(fork.path)
    return fork


def changed(fork: Repository) -> set[str]:
    """Return the changed files outside the folders that are removed."""
    fork.must("git", "add", "--all")
    files = fork.must("git", "diff", "--cached", "--no-renames", "--name-only").splitlines()
    return {file for file in files if not file.startswith(GONE)}


def value(fork: Repository, file: str, *keys: str | int) -> object:
    found = yaml.safe_load((fork.path / file).read_text())
    for key in keys:
        found = found[key]
    return found


def test_every_place_of_an_identity_exists_in_the_template() -> None:
    for file, expected in identity.places(identity.TEMPLATE).items():
        text = (ROOT / file).read_text()
        assert [place for place in expected if not identity.holds(text, place)] == [], file


def test_init_sets_names_and_removes_the_sample(fork: Repository, slipway: Run) -> None:
    done = slipway("init")
    assert done.code == 0, done
    for file, expected in identity.places(WINE).items():
        text = (fork.path / file).read_text()
        assert [place for place in expected if not identity.holds(text, place)] == [], file
    single_files = {"CONTRIBUTING.md", ".github/workflows/cluster.yml", "docs/decay.svg"}
    assert changed(fork) == NAMED | EMPTIED | PAGES | single_files | {str(RECORD)}
    lines = fork.must("git", "diff", "--cached", "-U0", "params.yaml").splitlines()
    assert [line.split("#")[0].strip("+ ") for line in lines if re.match(r"\+ ", line)] == [
        "experiment: wine",
        "image: ghcr.io/acme/wine",
        'source: ""',
    ]
    assert value(fork, "kustomize/overlays/staging/kustomization.yaml", "namespace") == "wine-staging"
    assert value(fork, "kustomize/overlays/production/namespace.yaml", "metadata", "name") == "wine"
    assert fork.run("git", "grep", "-nE", "house-prices|your-team|YOUR-ORG", "--", "kustomize", ".github").code == 1
    shutil.rmtree("data")
    assert "A  data/" not in fork.must("dvc", "pull", "data.dvc", "champion.dvc")
    assert [*Path("data").iterdir(), *Path("champion").iterdir()] == []
    for step in ("git add --all", "src/model/", "dvc add data && dvc repro", "a pull request"):
        assert step in done.out


def test_a_fork_has_few_files_and_lines(fork: Repository, slipway: Run) -> None:
    """A fork owns fewer than 90 files, and has no folder that only the template needs."""
    (fork.path / "demo/__pycache__").mkdir(exist_ok=True)
    (fork.path / "demo/__pycache__/scenario.pyc").touch()
    printed = slipway("init").out
    fork.must("git", "add", "--all")
    files = fork.must("git", "ls-files").splitlines()
    assert [file for file in files if file.startswith(GONE)] == [
        "sample/remote/files/md5/d7/51713988987e9331980363e24189ce.dir"
    ]
    assert not any(Path(folder).exists() for folder in GONE if folder != "sample/")
    own = re.search(r"(\d+) files are yours", printed)
    assert own
    assert int(own[1]) < 90
    assert sum(int(number) for number in re.findall(r"(\d+) (?:files|others)", printed)) == len(files) - 1


def test_the_record_names_the_files_of_the_framework(fork: Repository, slipway: Run) -> None:
    assert slipway("init").code == 0
    record = Record.parse(RECORD.read_bytes())
    assert (record.template, record.identity) == (None, WINE)
    fork.must("git", "add", "--all")
    for path in ("src/slipway/contract.py", "Makefile", "docs/clusters.md", "tests/model/__init__.py"):
        assert record.files[path] == fork.must("git", "rev-parse", f":{path}").strip()
    assert not {"params.yaml", "src/model/train.py", ".github/CODEOWNERS", "docs/decisions/fork.md"} & set(record.files)
    assert set(record.files) <= set(fork.must("git", "ls-files").splitlines())


def test_the_overlays_have_the_host_names(fork: Repository, slipway: Run) -> None:
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
        fork.commit("Start from the template")
        assert "nothing to change" in slipway("init").out
        assert fork.must("git", "status", "--porcelain") == ""
    assert value(fork, "kustomize/overlays/staging/kustomization.yaml", "namespace") == "cellar-staging"
    assert value(fork, "kustomize/overlays/staging/host.yaml", "spec", "hostnames", 0) == "try.acme.example"
    assert value(fork, "params.yaml", "release", "image") == WINE.image  # no flag named it


def test_a_line_that_a_person_changed_stays_and_is_listed(fork: Repository, slipway: Run) -> None:
    overlay, project = "kustomize/overlays/staging/kustomization.yaml", "kustomize/agents/argocd/project.yaml"
    fork.edit(overlay, "namespace: house-prices-staging", "namespace: 'trial' # ours")
    fork.edit(project, "description: The house-prices model", "description: Ours")
    fork.edit("params.yaml", "source: sample/source", "source: s3://acme/wine")
    (fork.path / "README.md").write_text("# Wine\n")
    shutil.rmtree(fork.path / "kustomize/agents/flux")
    fork.commit("By hand")
    done = slipway("init")
    assert done.code == 0
    assert f"{overlay} has no line `namespace: wine-staging`, because a person changed it" in done.out
    assert "namespace: 'trial' # ours\n" in (fork.path / overlay).read_text()
    assert (value(fork, project, "spec", "description"), value(fork, project, "metadata", "name")) == ("Ours", "wine")
    assert value(fork, "params.yaml", "ingest", "source") == "s3://acme/wine"
    assert (fork.path / "README.md").read_text() == "# Wine\n"


@pytest.mark.parametrize("name", ["null", "0x1f", "12", "on"])
def test_a_name_that_yaml_reads_as_something_else_is_quoted(fork: Repository, slipway: Run, name: str) -> None:
    assert slipway("init", "--name", name).code == 0
    assert value(fork, "kustomize/overlays/production/kustomization.yaml", "namespace") == name
    assert value(fork, "params.yaml", "record", "experiment") == name
    assert "nothing to change" in slipway("init").out


def test_data_of_a_person_is_never_removed(fork: Repository, slipway: Run) -> None:
    Path("data").mkdir()
    Path("data/mine.csv").write_text("a\n1\n")
    refused = slipway("init")
    assert (refused.code, "data/mine.csv is not part of the sample" in refused.err) == (1, True)
    assert fork.must("git", "status", "--porcelain") == ""
    fork.must("dvc", "add", "--quiet", "data")
    fork.must("dvc", "push", "--quiet", "data.dvc")
    fork.commit("Data of our own")
    tracked = fork.must("git", "ls-files", "sample/remote")
    assert slipway("init").code == 0
    assert not EMPTIED & changed(fork)
    assert Path("data/mine.csv").exists()
    assert not Path("sample/source").exists()
    assert fork.must("git", "ls-files", "sample/remote") == tracked


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("kustomize/agents/flux/source.yaml", "# more\n"),
        ("demo/scenario.py", "# more\n"),
        ("tests/slipway/test_ours.py", "new"),
        ("docs/decisions/demo.md", "more\n"),
        ("README.md", "more\n"),
    ],
)
def test_a_file_that_git_cannot_restore_is_not_changed(fork: Repository, slipway: Run, file: str, text: str) -> None:
    with (fork.path / file).open("a") as opened:
        opened.write(text)
    before = fork.must("git", "status", "--porcelain")
    refused = slipway("init")
    assert (refused.code, f"{file} has uncommitted changes" in refused.err) == (1, True)
    assert fork.must("git", "status", "--porcelain") == before


LATER = ("data", "kustomize/overlays/production/host.yaml", str(RECORD), "data.dvc")


def test_an_interrupted_run_continues(fork: Repository, slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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
            init.apply(init.plan(WINE))
        killing.pop(0)
    assert slipway("init").code == 0
    changed(fork)
    assert fork.must("git", "diff", "--stat", whole, fork.must("git", "write-tree").strip()) == ""


def test_an_interrupted_run_does_not_continue_with_another_name(fork: Repository, slipway: Run) -> None:
    """It would leave one name in some files and the other name in the rest."""
    edits = init.plan(WINE).files
    init.apply(init.Plan({Path("params.yaml"): edits[Path("params.yaml")]}, (), ()))
    before = fork.must("git", "status", "--porcelain")
    refused = slipway("init", "--name", "cellar")
    assert (refused.code, "params.yaml has uncommitted changes" in refused.err) == (1, True)
    assert fork.must("git", "status", "--porcelain") == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--name", "Wine"], "--name: 'Wine' cannot be a Kubernetes namespace; use at most 54 lowercase letters"),
        (["--name", "w" * 55], "cannot be a Kubernetes namespace"),
        (["--name", ""], "cannot be a Kubernetes namespace"),
        (["--image", "wine"], "--image: 'wine' is not the address of an image"),
        (["--image", "ghcr.io/acme/wine:1"], "is not the address of an image"),
        (["--image", "ghcr.io/Acme/wine"], "is not the address of an image"),
        (
            ["--staging-host", "wine_1.example.com"],
            "--staging-host: 'wine_1.example.com' is not a host name (RFC 1123)",
        ),
        (["--production-host", "https://wine.example.com"], "is not a host name"),
        (["--production-host", "w" * 64 + ".com"], "is not a host name"),
        (["--production-host", "wine-staging.example.com"], "is the host of production; choose another one"),
        (["--repository", ""], "The remote `origin` has no web address, so the agents cannot follow it"),
        (
            ["--repository", "https://ada:hunter2@example.com/acme/wine"],
            "--repository: the address contains a user",
        ),
        (["--repository", "acme/wine"], "--repository: 'acme/wine' is not the address of a repository"),
    ],
)
def test_an_invalid_value_is_an_error_and_changes_nothing(
    fork: Repository, slipway: Run, flags: list[str], words: str
) -> None:
    refused = slipway("init", *flags)
    assert (refused.code, words in refused.err, refused.err.count("\n")) == (2, True, 1), refused.err
    assert fork.must("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:acme/wine.git", URL),
        ("org-7@github.com:acme/wine.git", URL),
        ("ssh://git@github.com/acme/wine", URL),
        ("ssh://git@ssh.github.com:443/acme/wine.git", URL),
        ("ssh://git@git.example.com:2222/team/repo.git", "https://git.example.com/team/repo"),
        ("ssh://git@git.example.com:2222/team/repo", "https://git.example.com/team/repo"),
        ("https://token@github.com/acme/wine.git", URL),
        ("https://git.example.com:8443/acme/wine.git", "https://git.example.com:8443/acme/wine"),
        ("https://git.acme.example/a/team/wine/", "https://git.acme.example/a/team/wine"),
        ("../wine", None),
    ],
)
def test_the_web_address_is_derived_from_origin(fork: Repository, remote: str, address: str | None) -> None:
    fork.must("git", "remote", "set-url", "origin", remote)
    assert identity.origin() == address


def test_init_prompts_in_a_terminal_and_enter_accepts_the_default(fork: Repository) -> None:
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
    answers = {"name": "cellar", "image": "ghcr.io/acme/cellar", "staging": "try.acme.example"}
    wanted = asdict(WINE) | answers | {"production": "cellar.example.com"}
    assert Record.parse((fork.path / RECORD).read_bytes()).identity == identity.Identity(**wanted)
    assert value(fork, "kustomize/overlays/staging/host.yaml", "spec", "hostnames", 0) == "try.acme.example"
    assert value(fork, "params.yaml", "release", "image") == "ghcr.io/acme/cellar"


@pytest.mark.usefixtures("fork")
def test_status_outputs_whether_there_is_a_champion(
    slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    for verb in ("status", "init", "status"):
        assert slipway(verb).code == 0
    assert (tmp_path / "output").read_text() == "champion=true\nchampion=false\n"


@pytest.mark.usefixtures("fork")
def test_verbs_without_the_sample_print_what_to_do(slipway: Run) -> None:
    assert slipway("init").code == 0
    for verb, code, words in (
        ("ingest", 2, "`ingest.source` is empty; name the folder of the deliveries"),
        ("monitor", 0, "nothing to do: no model is live yet"),
        ("open-data-pr", 0, "nothing to do: ingest.source in params.yaml is empty"),
        ("candidate", 0, "nothing to release: data.dvc has no delivery yet"),
    ):
        done = slipway(verb)
        assert (done.code, words in done.out + done.err) == (code, True), (verb, done)
