"""The pipeline runs as users run it: in fresh clones, with git, DVC and the verbs as processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from slipway import cli
from slipway.artifacts import BUNDLE, VERDICT, Verdict
from slipway.bundle import folder_hash
from tests.slipway.conftest import ROOT, Repository, Result

Clone = Callable[[str], Repository]


def verbs(command: Any, *path: str) -> list[tuple[str, ...]]:
    """Return the words of each verb, such as `image build`."""
    if not hasattr(command, "commands"):
        return [path]
    return [verb for name, each in command.commands.items() for verb in verbs(each, *path, name)]


def verdict(repository: Repository) -> Verdict:
    return Verdict.read(repository.path / VERDICT)


def ran(output: str) -> list[str]:
    """Return the stages whose command was run."""
    return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)


def test_a_fresh_clone_has_nothing_to_do(clone: Clone) -> None:
    """On main, dvc.lock matches code and data, and the champion is their result."""
    repository = clone("fresh")
    repository.must("dvc", "pull", "--quiet")
    assert "up to date" in repository.must("dvc", "status")
    assert ran(repository.must("dvc", "repro")) == []
    assert verdict(repository).verdict == "unchanged"
    assert repository.must("git", "status", "--porcelain") == ""
    assert repository.run("slipway", "verdict").code == 0


def test_the_next_delivery_ships(delivered: Repository) -> None:
    decided = verdict(delivered)
    assert decided.verdict == "ship"
    assert decided.comparison
    assert decided.comparison.interval[0] > 0
    assert re.search(r"falls by \$\d+ .* 95% interval \[.*\], on 796 sales from", decided.reason)
    assert decided.decay
    shown = delivered.run("slipway", "verdict")
    assert (shown.code, "SHIP" in shown.out) == (0, True)
    again = delivered.must("dvc", "repro")
    assert ran(again) == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("src/model/features.py", '    "latitude",\n    "longitude",\n', ""),
        ("params.yaml", "max_iter: 200", "max_iter: 20"),
    ],
    ids=["without location", "max_iter 20"],
)
def test_a_worse_model_is_held(judged: Clone, file: str, old: str, new: str) -> None:
    repository = judged("worse")
    repository.edit(file, old, new)
    assert ran(repository.must("dvc", "repro")) == ["train", "evaluate", "gate"]
    decided = verdict(repository)
    assert decided.verdict == "hold"
    assert "mean absolute error rises by $" in decided.reason
    shown = repository.run("slipway", "verdict")
    assert (shown.code, "HOLD" in shown.out) == (1, True)


def test_two_clones_give_the_same_bytes(clone: Clone, delivered: Repository) -> None:
    """The second clone uses one core, four threads, another hash seed, and programs that start as new processes."""
    second = clone("second")
    second.environment = second.cold
    second.must("dvc", "pull", "--quiet", "data.dvc", "champion.dvc")
    second.must("slipway", "ingest")
    one_core = ("taskset", "-c", "0") if sys.platform == "linux" else ()
    second.must(*one_core, "dvc", "repro", OMP_NUM_THREADS="4", PYTHONHASHSEED="7")
    assert folder_hash(second.path / BUNDLE) == folder_hash(delivered.path / BUNDLE)
    assert (second.path / "dvc.lock").read_text() == (delivered.path / "dvc.lock").read_text()
    assert (second.path / VERDICT).read_text() == (delivered.path / VERDICT).read_text()


def test_a_remote_run_cache_restores_training(judged: Clone, clone: Clone, tmp_path: Path) -> None:
    """A clone with an empty cache and without a dvc.lock of the new data trains no model."""
    first = judged("first")
    remote = str(tmp_path / "remote")
    first.must("dvc", "remote", "add", "--local", "shared", remote)
    first.must("dvc", "push", "--quiet", "--run-cache", "--remote", "shared")

    second = clone("second")
    second.must("dvc", "pull", "--quiet", "data.dvc", "champion.dvc")
    second.must("slipway", "ingest")
    second.must("dvc", "remote", "add", "--local", "--default", "shared", remote)
    second.must("dvc", "fetch", "--quiet", "--run-cache")
    output = second.must("dvc", "repro", "--pull")
    assert not {"validate", "split", "train"} & set(ran(output)), output
    assert "train  exported graph" not in output
    assert folder_hash(second.path / BUNDLE) == folder_hash(first.path / BUNDLE)
    assert verdict(second) == verdict(first)


FITS_FOREVER = """\
    import pathlib, time
    pathlib.Path("fitting").touch()
    time.sleep(3600)
"""


def test_a_kill_during_train_leaves_no_partial_output(judged: Clone) -> None:
    repository = judged("killed")
    repository.edit("src/model/train.py", "    trees = ", FITS_FOREVER + "    trees = ")
    before = {name: (repository.path / name).read_text() for name in ("data.dvc", "champion.dvc", "dvc.lock")}
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=repository.path,
        env=repository.cold,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (repository.path / "fitting").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (repository.path / BUNDLE).exists()
    assert {name: (repository.path / name).read_text() for name in before} == before
    repository.edit("src/model/train.py", FITS_FOREVER, "")
    repository.must("dvc", "repro")
    assert verdict(repository).verdict == "ship"
    assert not list((repository.path / "build").glob(".*.partial/bundle"))


def test_a_narrow_terminal_truncates_nothing(delivered: Repository) -> None:
    shown = delivered.run("slipway", "verdict", COLUMNS="80").out
    assert "…" not in shown
    assert "11,019" in shown


def test_an_unexpected_error_is_reported_in_one_sentence_with_exit_code_2(tmp_path: Path) -> None:
    """Exit code 1 is reserved for a failed check."""
    broken = Repository(tmp_path)
    broken.environment["PYTHONPATH"] = str(ROOT / "src")
    (tmp_path / "params.yaml").mkdir()
    broken.must("git", "init", "--quiet")
    result = broken.run("slipway", "gate")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "slipway: unexpected IsADirectoryError" in result.err


@pytest.mark.parametrize("verb", verbs(typer.main.get_command(cli.app)), ids=" ".join)
def test_help_lists_inputs_outputs_and_exit_codes(
    verb: tuple[str, ...], slipway: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(slipway(*verb, "--help").out.split())
    assert "Reads" in text
    assert "Exit codes: 0 success, 1 a check failed or the verdict is hold, 2 invalid input or another error." in text
    without_effect = {("verdict",), ("merge-check",)}
    assert verb in without_effect or re.search("[Ww]rites|[Ss]tarts|changes|applies|opens", text)


def test_only_debug_shows_a_traceback(tmp_path: Path) -> None:
    nowhere = Repository(tmp_path)
    nowhere.environment["PYTHONPATH"] = str(ROOT / "src")
    quiet, loud = nowhere.run("slipway", "validate"), nowhere.run("slipway", "--debug", "validate")
    assert (quiet.code, quiet.err.count("\n")) == (2, 1)
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err
