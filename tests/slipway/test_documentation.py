"""Every command in the documentation runs, every link has a target, and quoted output is current."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
import typer.main

from demo.fakes.github_server import State
from slipway.cli import app
from slipway.config import Params
from slipway.fork.identity import TEMPLATE
from slipway.fork.manifest import this_manifest
from slipway.fork.record import RECORD, Record
from slipway.integrations.git_files import files_of
from slipway.integrations.log_store import LogStore
from slipway.monitoring.ship_log import ship
from slipway.serving.settings import PREFIX, Settings
from tests.slipway import outside
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.monitoring.test_prediction_log import write_log
from tests.slipway.release.conftest import bare, flags, offer, work
from tests.slipway.serving.conftest import odd_bundle
from tests.slipway.serving.odd import AREA, ROW
from tests.slipway.serving.test_prediction_log import marked
from tests.slipway.tools import require

__all__ = ["bare", "odd_bundle", "offer", "work"]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
TRACKED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
MARKDOWN = [ROOT / name for name in TRACKED.split("\0") if name.endswith(".md") and (ROOT / name).is_file()]
NOT_HERE = {
    "make demo": "tests/slipway/end_to_end/test_demo.py runs it",
    ".venv/bin/slipway init": "tests/slipway/fork runs it",
    "slipway serve": "does not end, and tests/slipway/serving sends it requests",
    "kind create cluster --name slipway --kubeconfig build/kubeconfig": "the workflow Cluster creates one",
    "make kind cluster": "the workflow Cluster runs these tests",
    "make test": "tests/slipway/end_to_end/test_fork.py runs it in a fork",
}
ALARMS = {"slipway drift --delivery 1997H1"}
"""Commands that exit with 1, as their page describes."""
HOSTS = {"archive.ics.uci.edu", "github.com", "kind.sigs.k8s.io"}
PLAYED = "make-it-yours.md"
COMPARED = ("pytorch.md", "text.md", "vectors-and-images.md")
"""The pages that the tests of examples/ compare with the code of the example."""
"""The page that tests/slipway/end_to_end/test_fork.py runs in a fork. It contains whole files."""
MADE_BY_RUNNING = ("build/", "data/", "champion/", ".venv/")


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates for the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def reader(warm_environment: Path, work: Repository, tmp_path: Path) -> Repository:
    """The clone of a reader, with an installed environment and an origin that accepts pushes.

    Its .venv has the programs of the current environment, and `make` regards it as up to date.
    """
    venv = work.path / ".venv"
    venv.mkdir()
    (venv / "bin").symlink_to(warm_environment / "bin")
    known = work.run("make", "--print-data-base", "--question", "help").out
    ready = re.search(r"^READY := (.+)", known, re.MULTILINE)
    assert ready
    (work.path / ready[1]).touch()
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    work.environment["PATH"] = f"{fakes}{os.pathsep}{work.environment['PATH']}"
    work.environment["GIT_CONFIG_GLOBAL"] = os.devnull
    for who in ("AUTHOR", "COMMITTER"):
        work.environment |= {f"GIT_{who}_NAME": "Reader", f"GIT_{who}_EMAIL": "reader@localhost"}
    return work


@pytest.fixture
def trained(reader: Repository, delivered: Repository) -> Repository:
    """The clone of a reader, with the DVC cache of an earlier run, so that no model has to be trained."""
    shutil.copytree(delivered.path / ".dvc/cache", reader.path / ".dvc/cache")
    return reader


def read(page: str, reader: Repository, instead: dict[str, str] | None = None, **variables: str) -> str:
    """Run the commands of a page as one script and return its output. `instead` replaces the examples in it."""
    lines = ["set -eu"]
    for command in commands(ROOT / page):
        for example, real in (instead or {}).items():
            command = command.replace(example, real)
        if command not in NOT_HERE:
            lines.append(f"{command} || [ $? -eq 1 ]" if command in ALARMS else command)
    (reader.path / "build").mkdir(exist_ok=True)
    log = reader.path / "build/said.txt"
    with log.open("w") as said:
        process = subprocess.Popen(
            ["sh", "-xc", "\n".join(lines)],
            cwd=reader.path,
            env=reader.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=300)
        finally:  # also ends processes that the script left in the background
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert code == 0, f"{page}: {log.read_text()[-6000:]}"
    return log.read_text()


def test_commands_of_the_quick_start_run(trained: Repository) -> None:
    reader, said = trained, read("docs/quick-start.md", trained)
    sentence = re.search(r"^SHIP: .+", (ROOT / "docs/quick-start.md").read_text(), re.MULTILINE)
    assert sentence
    assert sentence[0] in said
    assert (reader.path / "build/report/report.html").is_file()
    assert reader.must("git", "status", "--porcelain") == ""
    other = reader.clone(reader.path.parent / "other")
    other.must("git", "checkout", "--quiet", "1997H2")
    other.must("dvc", "pull", "--quiet", "data.dvc")
    assert (other.path / "data/1997H2.csv").is_file()


def test_commands_for_github_run(reader: Repository, tmp_path: Path) -> None:
    (reader.path / "build").mkdir()
    (reader.path / "build/app.pem").write_text("secret")
    with outside.github(tmp_path) as github:
        read(
            "docs/github.md",
            reader,
            {"gh secret": "echo secret | gh secret", "gh var": "echo 1 | gh var"},
            **github.variables(),
        )
    assert [path.rpartition("/")[2] for _, path in github.changes] == [
        "rulesets",
        "labels",
        "variables",
        "PROMETHEUS_URL",
        "PROMETHEUS_TOKEN",
        "variables",
        "SLIPWAY_APP_KEY",
    ]


def test_commands_for_runners_run(reader: Repository, tmp_path: Path) -> None:
    outside.kubectl(tmp_path / "fakes", require("kustomize"))
    with outside.github(tmp_path) as github:
        read("docs/runners.md", reader, **github.variables())
    assert [path.rpartition("/")[2] for _, path in github.changes] == ["variables", "variables"]


def test_commands_for_clusters_run(reader: Repository, tmp_path: Path) -> None:
    """The commands run with a fake `kubectl` and the real Kustomize, before any agent has applied a release."""
    outside.kubectl(tmp_path / "fakes", require("kustomize"))
    (reader.path / "build").mkdir()
    (reader.path / "build/kubeconfig").write_text("kind: Config\n")
    with outside.github(tmp_path) as github:
        said = read("docs/clusters.md", reader, **github.variables())
    assert [path.rpartition("/")[2] for _, path in github.changes] == ["KUBE_CONFIG"]
    assert "nothing to release" in said


def test_commands_for_storage_run(trained: Repository, tmp_path: Path) -> None:
    """A second clone pulls everything from a local S3 server. Other stores are only configured."""
    page = ROOT / "docs/storage.md"
    names = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING"}
    with outside.s3(tmp_path) as store, outside.github(tmp_path) as github:
        real = {"https://s3.example.com": store.url, "gh secret": "echo secret | gh secret"}
        read(str(page.relative_to(ROOT)), trained, real, **store.variables(), **github.variables())
        assert {path.rpartition("/")[2] for _, path in github.changes} == names | {"variables"}
        trained.must("git", "checkout", "--quiet", ".dvc/config")
        other = trained.clone(tmp_path / "other")
        assert other.run("dvc", "pull", **store.variables() | {"AWS_SECRET_ACCESS_KEY": "wrong"}).code != 0
        other.environment |= store.variables()
        other.must("dvc", "pull", "--quiet")
        assert other.must("dvc", "status").strip() == "Data and pipelines are up to date."
        store.files().put(str(ROOT / "sample/source"), f"{outside.BUCKET}/houses", recursive=True)
        other.edit("params.yaml", "source: sample/source", f"source: s3://{outside.BUCKET}/houses")
        said = other.must("slipway", "ingest", AWS_ENDPOINT_URL=store.url)
        assert "1997H2 ingested" in said


def test_commands_for_sources_run(reader: Repository, tmp_path: Path) -> None:
    with outside.github(tmp_path) as github:
        read("docs/sources.md", reader, {"gh secret": "echo secret | gh secret"}, **github.variables())
    names = ["SLIPWAY_SOURCE_USER", "SLIPWAY_SOURCE_PASSWORD"]
    assert [path.rpartition("/")[2] for _, path in github.changes] == names


def test_commands_for_the_prediction_log_run(reader: Repository, odd_bundle: Path) -> None:
    log = reader.path / "build/prediction-log"
    write_log(log, marked(odd_bundle, reader.path / "build"), [ROW])
    said = read("docs/prediction-log.md", reader, {"customer=4711": f'"{AREA}=3"'})
    assert "1 rows in 1 segments shipped" in said
    assert "1 rows removed from 1 of 1 files" in said


def test_commands_for_live_performance_run(reader: Repository, odd_bundle: Path) -> None:
    build = reader.path / "build"
    write_log(build / "prediction-log", marked(odd_bundle, build), [ROW])
    ship(build / "prediction-log", LogStore(str(build / "shipped-log")), pytest.fail)
    known_at = datetime.now(UTC).date() + timedelta(days=1)  # also right if the day ends now
    (build / "labels.csv").write_text(f"request_id,price,known_at\nr-0,1000,{known_at}\n")
    assert "1 of 1 rows have a truth" in read("docs/live-performance.md", reader)
    read("docs/replay.md", reader)
    (copied,) = (build / "joined-log").rglob("*.parquet")
    assert pq.read_table(copied)["truth"].to_pylist() == [1000]


def test_commands_for_tuning_run(trained: Repository) -> None:
    params = trained.path / "params.yaml"
    short = params.read_text().replace("max_iter: 200", "max_iter: 2")
    params.write_text(short + "\ntune: {trials: 1, folds: 2, settings: {learning_rate: {low: 0.2, high: 0.3}}}\n")
    said = read("docs/tune.md", trained)
    assert "the best mean absolute error is" in said
    assert "in MLflow has the search" in said
    assert re.search(r"^-    learning_rate: 0.08\n\+    learning_rate: 0.2\d*$", said, re.MULTILINE)


def test_commands_for_mlflow_run(trained: Repository, tmp_path: Path) -> None:
    (port,) = outside.ports(1)
    real = {
        "5000": str(port),
        "mlflow server": "mlflow server --workers 1",
        "make pipeline": f"make pipeline; {up(port)}",
        "gh secret": "echo secret | gh secret",
    }
    with outside.github(tmp_path) as github:
        said = read("docs/mlflow.md", trained, real, MLFLOW_TRACKING_URI="", **github.variables())
    assert len(re.findall(r"run \w+ written", said)) == 1
    assert len(re.findall(r"run \w+ has this bundle already", said)) == 1
    assert (trained.path / "build/registry.db").is_file()
    assert list((trained.path / "build/artifacts").rglob("model.onnx"))
    assert not (trained.path / "mlflow.db").exists()


def up(port: int) -> str:
    """Return a command that waits until a server answers."""
    return (
        f"until python -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:{port}/health\")'; do sleep 1; done"
    )


def test_commands_for_batch_scoring_run(reader: Repository) -> None:
    said = read("docs/batch.md", reader)
    assert len(re.findall(r"1998H1.csv: [0-9,]+ of", said)) == 1
    assert len(re.findall(r"1998H1.csv: already done", said)) == 1
    assert list((reader.path / "build/scored/answers").iterdir())


def test_commands_for_scale_run(reader: Repository) -> None:
    (port,) = outside.ports(1)
    assert "1998H1.csv" in read("docs/scale.md", reader, {"8786": str(port)})
    assert list((reader.path / "build/scored/answers").iterdir())


def test_commands_for_operations_run(trained: Repository, tmp_path: Path, offer: Callable[[str], object]) -> None:
    """The page runs after two releases, and rolls back to the first."""
    for number, words in enumerate(("first", "second"), start=1):
        offer(words)
        trained.must("slipway", "promote", "production", *flags(number))
        trained.must("git", "pull", "--quiet")
    trained.must("git", "reset", "--quiet", "--hard", "HEAD~2")
    with outside.github(tmp_path) as github:
        said = read("docs/operations.md", trained, **github.variables())
    assert re.search(rf"sha-{1:012x} is live in production: [0-9a-f]{{40}}", said)
    assert "NO ALARM: mean absolute error rose by" in said
    assert "ALARM: wall" in said
    started = [re.search(r"(\d+)/dispatches|dispatches", path) for _, path in github.changes]
    numbers = [int(each[1]) if each and each[1] else None for each in started]
    workflows = [sorted(outside.WORKFLOWS)[each] if each is not None else "an event" for each in numbers]
    assert workflows == ["rollback.yml", "ship.yml", "ship.yml", "new-data.yml", "an event"]


def test_commands_for_updates_run(trained: Repository, origin: Repository, tmp_path: Path) -> None:
    """A fork with its own settings and page updates to a version that changes the code of a pipeline stage."""
    template = origin.clone(tmp_path / "template")
    template.edit("src/slipway/pipeline/gate.py", '"""gate:', '"""Gate:')
    template.commit("A new version")
    template.must("git", "tag", "v0.2.0")
    manifest, tracked = this_manifest(), files_of(trained.must("git", "rev-parse", "HEAD").strip(), trained.path)
    files = {path: file.hash for path, file in tracked.items() if manifest.is_framework(path)}
    record = Record(template=None, version="0.1.0", identity=TEMPLATE, files=files)
    (trained.path / RECORD).write_bytes(record.content())
    trained.edit("params.yaml", "timeout_seconds: 600", "timeout_seconds: 900")
    (trained.path / "docs/ours.md").write_text("# A page of the fork\n")
    trained.commit("Make it ours")
    read("docs/updates.md", trained, {"https://github.com/YOUR-TEMPLATE/slipway": str(template.path)})
    assert '"""Gate:' in (trained.path / "src/slipway/pipeline/gate.py").read_text()
    assert "timeout_seconds: 900" in (trained.path / "params.yaml").read_text()
    assert trained.must("git", "log", "-1", "--format=%s").strip() == "Update the framework to v0.2.0"
    assert trained.must("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("PUT", "/actions/secrets/AWS_SECRET", {}),
        ("POST", "/actions/variables", {"name": "APP_ID", "value": "1"}),
        ("POST", "/dispatches", {"event_type": "new-date"}),
        ("POST", "/labels", {"name": "ship-it", "description": ""}),
        ("POST", "/rulesets", {"target": "branch", "rules": []}),
    ],
)
def test_a_setting_that_no_workflow_reads_is_detected(method: str, path: str, content: Any) -> None:
    request = {"method": method, "path": f"/repos/team/houses{path}", "body": content}
    assert outside.without_effect(State(requests=[request])) == [path]


def test_a_test_runs_the_commands_of_every_page() -> None:
    """A test above names each page. All commands of the README are in NOT_HERE."""
    here = Path(__file__).read_text()
    for page in PAGES:
        if page.name != PLAYED and any(command not in NOT_HERE for command in commands(page)):
            assert f'docs/{page.name}"' in here, page
    assert NOT_HERE.keys() <= {command for page in PAGES for command in commands(page)}
    for page in MARKDOWN:
        known = {"sh", "text", ""} | ({"python", "diff", "console"} if page.name in (PLAYED, "export.md") else set())
        known |= {"python", "yaml"} if page.name in COMPARED else set()
        assert set(re.findall(r"^ *```(\w*)", page.read_text(), re.MULTILINE)) <= known, page


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("github.md", "GitHub does not let you approve your own pull request"),
        ("github.md", "`required_approving_review_count` to 0"),
        ("github.md", "`strict_required_status_checks_policy` to false"),
        ("github.md", "| Required reviewers for `production` | yes | no | no | yes |"),
        ("github.md", "the numeric ID of the App and the file with its private key"),
        ("clusters.md", "uncomment the component `pull-secret`"),
        ("clusters.md", "GitHub's runners must reach the URL"),
        ("storage.md", "`gh secret set --app dependabot`"),
        ("security.md", "`--predicate-type https://spdx.dev/Document/v2.3`"),
        ("troubleshooting.md", "contains `[skip ci]`"),
        ("troubleshooting.md", "all but the first 300 changed files"),
        ("troubleshooting.md", "after 60 days without a commit"),
        ("troubleshooting.md", "The checks of a contributor's first pull request wait"),
    ],
)
def test_a_page_contains_what_users_of_github_need(page: str, words: str) -> None:
    assert words in " ".join((ROOT / "docs" / page).read_text().split())


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            assert re.fullmatch(r"https://([\w.-]+)(/[\w./-]*)?", target), target
            assert target.split("/")[2] in HOSTS, target
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target
    for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text):
        there = ROOT / "kustomize/overlays/production" if path.startswith("..") else ROOT
        assert path.startswith(MADE_BY_RUNNING) or (there / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tasks_verbs_options_and_settings_in_the_documentation_exist(page: Path) -> None:
    """Settings are the keys of params.yaml, and the variables and secrets that workflows read."""
    text = page.read_text()
    assert set(re.findall(r"`make ([\w-]+)", text)) <= set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    )
    for verb, rest in re.findall(r"`(?:\.venv/bin/)?slipway (\w[\w-]*)([^`]*)`", text):
        assert verb in verbs(), verb
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in verbs()[verb], f"{verb} {option}"
    # The annotation of an optional section is, for example, `Live | None`.
    sections = {
        each.alias or name: (get_args(each.annotation) or (each.annotation,))[0]
        for name, each in Params.model_fields.items()
    }
    for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)", text):
        if section in sections and key != "yaml":
            assert key in sections[section].model_fields, f"{section}.{key}"
    of_others = {"AWS_ENDPOINT_URL", "UV_TORCH_BACKEND"}  # boto3 and uv read them
    for name in set(re.findall(r"`([A-Z][A-Z]+_[A-Z_]+)`", text)) - of_others:
        assert any(name in workflow for workflow in (*outside.WORKFLOWS.values(), *outside.ACTIONS, *settings())), name


@cache
def verbs() -> dict[str, set[str]]:
    """Return each verb with its options. A group of verbs has the options of all its verbs."""

    def options(command: Any) -> set[str]:
        own = {each for parameter in command.params for each in parameter.opts}
        return own.union(*map(options, getattr(command, "commands", {}).values()))

    return {name: options(command) for name, command in typer.main.get_command(app).commands.items()}  # type: ignore[attr-defined]


@cache
def settings() -> list[str]:
    """Return the Python code that can name a variable, and the variables of the server's settings."""
    server = " ".join(PREFIX + name.upper() for name in Settings.model_fields)
    return [server] + [
        path.read_text() for folder in ("src", "tests/cluster") for path in (ROOT / folder).rglob("*.py")
    ]


def test_quotations_of_the_report_are_current(delivered: Repository, tmp_path: Path) -> None:
    """Each quoted line is in the output of `slipway report` for the delivery 1997H2."""
    author = Repository(Path(shutil.copytree(delivered.path, tmp_path / "author", symlinks=True)))
    author.commit("Ingest 1997H2")
    author.must("slipway", "report")
    written = {" ".join(line.split()) for line in (author.path / "build/report/report.md").read_text().splitlines()}
    for page in (ROOT / "README.md", ROOT / "docs/pull-request.md"):
        quoted = [line[2:].strip() for line in page.read_text().splitlines() if line.startswith("> ")]
        assert len(quoted) > 5
        assert [line for line in quoted if " ".join(line.split()) not in written] == []


def test_pages_are_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in (PLAYED, "export.md") or len(page.read_text().splitlines()) <= 120, page


@pytest.mark.parametrize(
    ("name", "page", "link"),
    [("loop.svg", "README.md", "docs/loop.svg"), ("architecture.svg", "docs/architecture.md", "architecture.svg")],
)
def test_picture_has_a_title_a_description_and_an_alternative_text(name: str, page: str, link: str) -> None:
    picture = ET.fromstring((ROOT / "docs" / name).read_text())
    named = {each.tag.rpartition("}")[2]: (each.text or "").strip() for each in picture}
    assert named["title"]
    assert len(named["desc"]) > 100
    assert re.search(rf"!\[[^]]{{50,}}\]\({re.escape(link)}\)", (ROOT / page).read_text())
