"""`slipway record` writes one run per judged bundle to a real MLflow registry."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import mlflow.onnx
import numpy as np
import pytest
from mlflow.entities import RunStatus

from slipway import bundle
from slipway.artifacts import VERDICT, Verdict
from slipway.release import registry
from tests.slipway.conftest import Result

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def first_judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first test leaves a copy of its judged bundle for the next tests."""
    return tmp_path_factory.mktemp("judged")


@pytest.fixture
def judged(workplace: Path, slipway: Run, first_judged: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A judged bundle in a repository with a commit and its own registry.

    Its address is absolute, because MLflow keeps what it opened by a relative one in an earlier test.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace}/mlflow.db")
    if any(first_judged.iterdir()):
        return Path(shutil.copytree(first_judged, workplace, dirs_exist_ok=True))
    Path("data.dvc").write_text("outs:\n- md5: 0123456789abcdef.dir\n  path: data\n")
    Path(".gitignore").write_text("build\nmlflow.db\nmlruns\n")
    for verb in ("validate", "split", "train", "evaluate", "gate"):
        assert slipway(verb).code == 0
    identity = ["-c", "user.name=T", "-c", "user.email=t@localhost"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "Start"]):
        subprocess.run(["git", *command], check=True)
    shutil.copytree(workplace, first_judged, dirs_exist_ok=True)
    return workplace


def runs() -> list[mlflow.entities.Run]:
    mlflow.set_tracking_uri(registry.tracking_uri())
    experiment = mlflow.get_experiment_by_name("house-prices")
    return list(mlflow.MlflowClient().search_runs([experiment.experiment_id])) if experiment else []


@pytest.mark.usefixtures("judged")
def test_run_contains_tags_params_metrics_and_files(slipway: Run) -> None:
    result = slipway("record")
    assert result.code == 0, result.err
    (run,) = runs()
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    verdict = Verdict.read(VERDICT)
    assert run.info.status == RunStatus.to_string(RunStatus.FINISHED)
    expected = {
        "slipway.bundle": verdict.challenger_bundle,
        "slipway.verdict": "first",
        "slipway.data": "0123456789abcdef",
        "slipway.git_commit": head,
        "slipway.git_clean": "true",
    }
    assert expected.items() <= run.data.tags.items()
    assert run.data.params["train.settings.max_iter"] == "30"
    assert run.data.metrics["mean_absolute_error"] == pytest.approx(verdict.challenger_loss)
    client = mlflow.MlflowClient()
    assert {"MODEL_CARD.md", "bundle", "report"} <= {each.path for each in client.list_artifacts(run.info.run_id)}
    assert "report/verdict.json" in {each.path for each in client.list_artifacts(run.info.run_id, "report")}


@pytest.mark.usefixtures("judged")
def test_recorded_model_gives_the_answers_of_the_bundle(slipway: Run) -> None:
    slipway("record")
    (run,) = runs()
    (model,) = mlflow.search_logged_models(filter_string=f"source_run_id = '{run.info.run_id}'", output_format="list")
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    assert {each.name for each in loaded.metadata.signature.inputs} == {"numbers", "categories"}
    judged_bundle = bundle.load_bundle(Path("build/bundle"))
    golden = bundle.Golden.model_validate_json(Path("build/bundle/golden.json").read_bytes())
    inputs = {
        "numbers": np.array(
            [
                [
                    (np.datetime64(row[name]) - np.datetime64("1970-01-01")).astype(float)
                    if name == "sale_date"
                    else row[name]
                    for name in judged_bundle.schema.numbers
                ]
                for row in golden.rows
            ],
            dtype=np.float32,
        ),
        "categories": np.array(
            [[row[name] for name in judged_bundle.schema.categories] for row in golden.rows], dtype=object
        ),
    }
    answer = loaded.predict(inputs)
    np.testing.assert_array_equal(answer["prediction"], np.array(golden.predictions, dtype=np.float32))


@pytest.mark.usefixtures("judged")
def test_second_record_changes_nothing(slipway: Run) -> None:
    slipway("record")
    before = [run.to_dictionary() for run in runs()]
    result = slipway("record")
    assert (result.code, "already" in result.out) == (0, True)
    assert [run.to_dictionary() for run in runs()] == before


@pytest.mark.usefixtures("judged")
def test_record_continues_a_run_that_was_killed(slipway: Run) -> None:
    killed_at_the_model = (
        "import os, signal, sys\n"
        "from slipway import cli\n"
        "from slipway.release import registry\n"
        "registry._signature = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv = ['slipway', 'record']\n"
        "cli.main()\n"
    )
    assert subprocess.run([sys.executable, "-c", killed_at_the_model], check=False).returncode == -signal.SIGKILL
    (cut,) = runs()
    assert cut.info.status == RunStatus.to_string(RunStatus.RUNNING)
    assert slipway("record").code == 0
    (run,) = runs()
    assert run.info.status == RunStatus.to_string(RunStatus.FINISHED)


@pytest.mark.usefixtures("judged")
def test_record_refuses_a_verdict_on_another_bundle(slipway: Run) -> None:
    Path("build/bundle/golden.json").write_text("{}")
    result = slipway("record")
    assert (result.code, "run `dvc repro` first" in result.err) == (1, True)
    assert not Path("mlflow.db").exists()


@pytest.mark.usefixtures("judged")
def test_record_names_a_missing_report_file(slipway: Run) -> None:
    Path("build/quarantine.csv").unlink()
    result = slipway("record")
    assert (result.code, "build/quarantine.csv is missing; run `dvc repro`" in result.err) == (2, True)
    assert not Path("mlflow.db").exists()


@pytest.mark.usefixtures("judged")
def test_record_names_a_registry_that_does_not_answer(slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = slipway("record")
    assert (result.code, "check MLFLOW_TRACKING_URI" in result.err) == (2, True)


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("uri", ["http://ada:hunter22@127.0.0.1:9", "postgresql://ada:hunter22@127.0.0.1:9/registry"])
def test_a_password_in_the_address_of_the_registry_is_not_printed(
    slipway: Run, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    result = slipway("record")
    assert (result.code, "check MLFLOW_TRACKING_URI" in result.err) == (2, True), result.err
    assert "hunter22" not in result.out + result.err


class _Tracking(BaseHTTPRequestHandler):
    """A tracking server that answers each request with the same experiment and run."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        info = {"run_id": "1", "experiment_id": "1", "artifact_uri": "file:///", "run_name": "n", "status": "RUNNING"}
        run = {"info": info, "data": {}}
        content = json.dumps({"experiment": {"experiment_id": "1", "name": "x"}, "run": run, "run_info": info}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize(("user", "printed"), [("", True), ("ada:hunter22@", False)])
def test_mlflow_prints_an_address_only_without_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], user: str, printed: bool
) -> None:
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Tracking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{user}127.0.0.1:{server.server_port}")
        with registry._registry() as client:
            client.set_terminated(client.create_run("1").info.run_id)
        server.shutdown()
    printed_text = capsys.readouterr().out
    assert ("View run" in printed_text, "hunter22" in printed_text) == (printed, False)


def test_record_creates_the_folder_of_its_database(judged: Path, slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{judged}/new/folder/mlflow.db")
    result = slipway("record")
    assert (result.code, (judged / "new/folder/mlflow.db").is_file()) == (0, True), result.err


def test_two_processes_may_record_into_a_new_database_at_once(judged: Path) -> None:
    """The checks of two pull requests can run on the same machine."""
    command = [sys.executable, "-m", "slipway", "record"]
    started = [subprocess.Popen(command, cwd=judged, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    assert {run.info.status for run in runs()} == {RunStatus.to_string(RunStatus.FINISHED)}
