"""`slipway decay`: exit code 0 without an alarm, 1 with an alarm, 2 if the champion cannot be evaluated."""

import importlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import model
from slipway import artifacts, bundle
from slipway.artifacts import Evaluation, Holdout, Release
from slipway.config import load_params
from slipway.contract import load_model
from slipway.monitoring.decay import DECAY
from slipway.monitoring.live_decay import reason_with_worst
from slipway.pipeline.decay import DeliveryDecay
from tests.slipway.conftest import ROOT, Repository, Result, edit

Run = Callable[..., Result]
LATER = Path("data/1997B.csv")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the first test leaves a released model for the others."""
    return tmp_path_factory.mktemp("released")


@pytest.fixture
def live(workplace: Path, slipway: Run, kept: Path) -> Path:
    """Release a model that was trained and evaluated on 1997A. 1997B is newer."""
    if not any(kept.iterdir()):
        train_and_release(workplace, slipway)
        for name in ("build", "champion", "metrics", "params.yaml"):
            (shutil.copytree if Path(name).is_dir() else shutil.copy)(name, kept / name)
    shutil.copytree(kept, workplace, dirs_exist_ok=True)
    return workplace


def train_and_release(workplace: Path, slipway: Run) -> None:
    edit(workplace / "params.yaml", "days: 20", "days: 10")
    aside = LATER.rename("1997B.csv")
    for verb in ("validate", "split", "train", "evaluate"):
        assert slipway(verb).code == 0
    shutil.copytree("build/bundle", "champion", dirs_exist_ok=True)
    scored = Evaluation.read(artifacts.EVALUATION)
    release(loss=scored.loss, value=scored.challenger.loss, holdout=scored.holdout)
    aside.rename(LATER)


def release(**known: object) -> None:
    Release.model_validate({"champion": bundle.folder_hash(Path("champion")), **known}).write(artifacts.RELEASE)


def change_price(share: float) -> None:
    rows = pd.read_csv(LATER)
    rows.assign(price=(rows["price"] * share).round()).to_csv(LATER, index=False)


@pytest.mark.usefixtures("live")
def test_unchanged_prices_cause_no_alarm(slipway: Run) -> None:
    result = slipway("decay")
    assert (result.code, "NO ALARM" in result.out) == (0, True), result.out + result.err
    decay = DeliveryDecay.read(DECAY)
    released = Release.read(artifacts.RELEASE)
    assert (decay.delivery, decay.alarm, decay.trained_on) == ("1997B", False, 0)
    assert decay.whole.rows == len(pd.read_csv(LATER))
    assert decay.whole.loss.at_release == released.value
    assert released.holdout
    rows: Counter[str | None] = Counter()
    for part in decay.slices:
        if part.loss.interval:
            assert part.loss.interval[0] <= part.loss.value <= part.loss.interval[1]
        rows[part.column] += part.rows
    assert set(rows.values()) == {decay.whole.rows}


@pytest.mark.usefixtures("live")
def test_higher_prices_cause_an_alarm(slipway: Run) -> None:
    change_price(1.5)
    result = slipway("decay")
    assert (result.code, "ALARM: mean absolute error rose by " in result.out) == (1, True)
    assert "answers are too low by $" in result.out
    decay = DeliveryDecay.read(DECAY)
    assert decay.alarm
    words = reason_with_worst(decay)
    assert words.startswith(f"bundle {decay.champion[:12]}: mean absolute error rose by ")
    assert "; the worst days are those from 1997-" in words


@pytest.mark.usefixtures("live")
def test_a_champion_is_not_evaluated_on_the_rows_of_its_own_release(slipway: Run) -> None:
    """On these rows the loss is always the loss at release."""
    result = slipway("decay", "1997A")
    assert (result.code, "was trained on every row of 1997A, or judged on it at its release" in result.err) == (2, True)
    assert not DECAY.exists()


def split_by_key() -> None:
    edit(Path("params.yaml"), "by: time", "by: key")


def forget_the_days() -> None:
    """Describe the release as that of data without time, and by a loss that no rows of it have any more."""
    known = Release.read(artifacts.RELEASE)
    holdout = Holdout(rows=known.holdout.rows if known.holdout else 0, first=None, last=None)
    release(loss=known.loss, value=(known.value or 0) * 1.01, holdout=holdout)


@pytest.mark.parametrize("change", [split_by_key, forget_the_days])
@pytest.mark.usefixtures("live")
def test_rows_that_may_belong_to_the_release_are_left_out_if_its_holdout_is_not_recognised(
    slipway: Run, change: Callable[[], object]
) -> None:
    change()
    own = slipway("decay", "1997A")
    assert (own.code, "or judged on it at its release" in own.err) == (2, True), own.out
    assert slipway("decay").code == 0
    assert DeliveryDecay.read(DECAY).whole.rows == len(pd.read_csv(LATER))


@pytest.mark.usefixtures("live")
def test_rows_of_the_release_and_of_its_training_are_left_out_of_a_delivery(slipway: Run) -> None:
    both = pd.concat([pd.read_csv("data/1997A.csv", dtype=str), pd.read_csv(LATER, dtype=str)])
    both.to_csv(LATER, index=False)
    Path("data/1997A.csv").unlink()
    result = slipway("decay")
    assert result.code == 0, result.out + result.err
    decay = DeliveryDecay.read(DECAY)
    released = Release.read(artifacts.RELEASE).holdout
    assert released
    assert (decay.trained_on > 0, decay.judged_on) == (True, released.rows)
    assert decay.whole.rows == len(both) - decay.trained_on - decay.judged_on
    assert f"{decay.trained_on:,} rows that it was trained on are left out" in result.out
    assert f"{decay.judged_on:,} rows that it was judged on at its release are left out" in result.out


@pytest.mark.usefixtures("live")
def test_slices_are_compared_with_the_rows_of_the_release(slipway: Run) -> None:
    assert slipway("decay").code == 0
    at_release = {(part.column, part.value): part.loss.at_release for part in DeliveryDecay.read(DECAY).slices}
    scored = Evaluation.read(artifacts.EVALUATION)
    known = {(part.column, part.value): part.challenger for part in scored.slices}
    assert at_release.keys() & known.keys()
    for key in at_release.keys() & known.keys():
        assert at_release[key] == pytest.approx(known[key])


@pytest.mark.usefixtures("live")
def test_another_key_is_refused(slipway: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "KEY", (*model.KEY, "rooms"))
    result = slipway("decay")
    assert (result.code, "has a different KEY or TARGET" in result.err) == (2, True)


@pytest.mark.usefixtures("live")
def test_slices_are_not_judged_without_the_rows_of_the_release(slipway: Run) -> None:
    value = Release.read(artifacts.RELEASE)
    release(loss=value.loss, value=(value.value or 0) * 1.01, holdout=value.holdout)
    slipway("decay")
    assert {part.loss.at_most for part in DeliveryDecay.read(DECAY).slices} == {None}


def forget() -> None:
    artifacts.RELEASE.write_text('{"champion": null}')


def tamper() -> None:
    path = Path("champion/golden.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows": [], "predictions": []}))


def train_on_all() -> None:
    known = np.load("champion/training_rows.npy")
    assert len(known)
    np.save("champion/training_rows.npy", np.sort(pd.read_parquet("build/validated.parquet")["row_id"].to_numpy()))
    value = Release.read(artifacts.RELEASE)
    release(loss=value.loss, value=value.value, holdout=value.holdout)


@pytest.mark.parametrize(
    ("spoil", "name", "words"),
    [
        (forget, None, "No model is live yet; merge a pull request"),
        (tamper, None, "but metrics/release.json names"),
        (lambda: shutil.rmtree("champion"), None, "champion/ is not in this clone; run `dvc pull champion.dvc`"),
        (lambda: None, "1998X", "data/ has no delivery 1998X"),
        (train_on_all, "1997A", "on every row of 1997A"),
        (
            lambda: edit(Path("params.yaml"), "loss: mean_absolute_error", "loss: mean_squared_error"),
            None,
            "lacks the mean squared error of the champion",
        ),
    ],
)
@pytest.mark.usefixtures("live")
def test_a_champion_that_cannot_be_evaluated_is_not_an_alarm(
    slipway: Run, spoil: Callable[[], object], name: str | None, words: str
) -> None:
    """The exit code is 2, the message is one sentence, and an earlier decay.json is removed."""
    DECAY.write_text("{}")
    spoil()
    result = slipway("decay", *([name] if name else []))
    assert (result.code, words in result.err, result.err.count("\n")) == (2, True, 1), result.err
    assert not DECAY.exists()


def test_the_docs_have_the_table_that_the_replay_gives(
    clone: Callable[[str], Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first two lines, the second of which is the first alarm; the others take minutes."""
    monkeypatch.syspath_prepend(ROOT)
    replay = importlib.import_module("benchmarks.replay")
    repository = clone("replay")
    repository.must("dvc", "pull", "--quiet", "data.dvc")
    deliveries = sorted((repository.path / "data").glob("199[34]H?.csv"))
    params = load_params(ROOT / "params.yaml")
    steps = replay.replay(deliveries, tmp_path / "played", params, load_model())
    lines = [" ".join(line.split()) for line in (ROOT / "docs/decisions/decay.md").read_text().splitlines()]
    assert [step.frozen.alarm for step in steps.values()] == [False, True]
    for name, step in steps.items():
        assert " ".join(replay.row(name, step, params)) in lines
