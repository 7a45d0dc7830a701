"""Drift that causes an alarm, and drift that does not."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from slipway import artifacts
from slipway.artifacts import Release
from slipway.bundle import folder_hash, load_bundle, read_reference
from slipway.config import Drift as Rule
from slipway.monitoring.drift import DRIFT, Drift, compare, noise
from slipway.monitoring.drift_sources import of_rows
from slipway.monitoring.metric_counts import BinCounts, RequestCounts, read_page, request_counts
from slipway.serving.served_model import ServedModel
from slipway.statistics.psi import population_stability
from tests.slipway.conftest import ROOT, Repository, Result, edit
from tests.slipway.monitoring.counted import BUNDLE, REFERENCE, SCHEMA, page
from tests.slipway.serving import odd
from tests.slipway.serving.odd import AREA, SOLD

Run = Callable[..., Result]
RULE = Rule(confidence=0.99, psi=0.1, minimum_rows=200, prometheus=None, label_matchers="", window="1d")


def drawn(rows: int, seed: int = 0) -> RequestCounts:
    """Draw rows from the distribution of the training data."""
    random = np.random.default_rng(seed)

    def draw(counts: tuple[int, ...], unseen: tuple[int, ...], missing: int) -> BinCounts:
        all_counts = np.array([*counts, *unseen, missing])
        *now, gone = random.multinomial(rows, all_counts / all_counts.sum()).tolist()
        return BinCounts(tuple(now), gone)

    return RequestCounts(
        rows,
        {
            name: draw(each.counts, () if each.values is None else (0,), each.missing)
            for name, each in REFERENCE.features.items()
        },
        {name: draw(each.counts, (), each.missing) for name, each in REFERENCE.prediction.items()},
    )


def verdict(now: RequestCounts, **rule: float) -> Drift:
    return compare(BUNDLE, SCHEMA, REFERENCE, now, RULE.model_copy(update=rule))


def moved(now: RequestCounts, **features: BinCounts) -> RequestCounts:
    return replace(now, features=now.features | features)


def alarms(drift: Drift) -> set[str]:
    return {each.name for each in drift.moved if each.alarm}


def test_another_sample_of_the_training_data_causes_no_alarm() -> None:
    drift = verdict(drawn(10_000))
    assert (drift.alarm, alarms(drift), drift.rows) == (False, set(), 10_000)
    assert "the largest PSI is" in drift.reason
    assert {each.name for each in drift.moved} == {*REFERENCE.features, *REFERENCE.prediction}
    psi = [each.psi for each in drift.moved if each.what != "date"]
    assert psi == sorted(psi, reverse=True)


def test_unseen_values_cause_an_alarm() -> None:
    """One in eight rows has an unseen value. The other shares are unchanged."""
    drift = verdict(moved(drawn(1000), colour=BinCounts((875, 125), 0)))
    assert alarms(drift) == {"colour"}
    assert drift.moved[0].unseen == 0.125
    assert "colour" in drift.reason


def test_missing_values_cause_an_alarm() -> None:
    drift = verdict(moved(drawn(1000), size=BinCounts((60, 380, 380, 60), 120)))
    assert alarms(drift) == {"size"}
    assert (drift.moved[0].missing_before, drift.moved[0].missing) == (0, 0.12)


def test_a_feature_that_is_no_longer_missing_causes_an_alarm() -> None:
    reference = REFERENCE.features["size"].model_copy(update={"missing": 300})
    gone = REFERENCE.model_copy(update={"features": {**REFERENCE.features, "size": reference}})
    assert alarms(compare(BUNDLE, SCHEMA, gone, drawn(2000), RULE)) == {"size"}


def test_a_changed_prediction_causes_an_alarm() -> None:
    now = drawn(1000)
    drift = verdict(replace(now, prediction=now.prediction | {"other": BinCounts((700, 200, 100), 0)}))
    assert [(each.name, each.what) for each in drift.moved if each.alarm] == [("other", "prediction")]
    assert "the prediction of other" in drift.reason


def test_a_date_is_shown_and_causes_no_alarm() -> None:
    drift = verdict(moved(drawn(1000), day=BinCounts((0, 1000), 0)))
    (day,) = (each for each in drift.moved if each.name == "day")
    assert day.psi > 1
    assert day == drift.moved[-1]
    assert not drift.alarm


def test_drift_that_may_be_noise_causes_no_alarm() -> None:
    """Ten times the rows with the same shares cause one."""
    few, many = (
        verdict(moved(drawn(rows), colour=BinCounts((rows - odd, odd), 0)), psi=0.001)
        for rows, odd in ((250, 2), (2500, 20))
    )
    assert not alarms(few)
    assert "which may be noise" in few.reason
    assert alarms(many) == {"colour"}


def test_drift_below_the_limit_causes_no_alarm() -> None:
    """Even if it is certain."""
    sure = verdict(moved(drawn(10**7), size=BinCounts((1_400_000, 4_100_000, 3_800_000, 700_000), 0)))
    (size,) = (each for each in sure.moved if (each.name, each.what) == ("size", "feature"))
    assert 0.01 < size.psi < 0.1
    assert size.noise < 0.05
    assert not sure.alarm


@pytest.mark.parametrize("rows", [0, 1, 199])
def test_few_rows_are_not_judged(rows: int) -> None:
    drift = verdict(moved(drawn(rows), colour=BinCounts((0, rows), 0)))
    assert not drift.alarm
    assert f"{rows} rows are too few to judge" in drift.reason
    assert Drift.model_validate_json(drift.model_dump_json()) == drift  # no number in it is infinite


@pytest.mark.parametrize("rows", [200, 1000])
def test_simulated_samples_exceed_the_noise_as_rarely_as_promised(rows: int) -> None:
    """One pair of samples in twenty exceeds the noise for that chance."""
    random, share = np.random.default_rng(0), np.full(10, 0.1)
    draws = [(random.multinomial(5000, share), random.multinomial(rows, share)) for _ in range(4000)]
    beyond = np.mean([population_stability(*draw) > noise(*draw, 0.05) for draw in draws])
    assert 0.035 < beyond < 0.065


@pytest.mark.parametrize("rows", [200, 500, 2000])
def test_false_alarms_are_as_rare_as_promised_without_a_limit(rows: int) -> None:
    found = sum(verdict(drawn(rows, seed), psi=1e-9).alarm for seed in range(400))
    assert found <= 10  # 4 of 400 are expected, and more than 10 happen once in 200 times


# Deliveries and the output of /metrics.


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository whose champion has columns of every kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "champion").mkdir()
    odd.write_bundle(tmp_path / "champion")
    reference = tmp_path / "champion/reference.json"
    reference.write_text(re.sub(r"\b1(?=[],])", "1000", reference.read_text()))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    edit(tmp_path / "params.yaml", "minimum_rows: 200", "minimum_rows: 20")
    return tmp_path


RECORDS = [
    {AREA: 1, "rooms": None, SOLD: "2001-01-01", "kind": "a", "note": "never seen"},
    {AREA: 2.5, "rooms": 2, SOLD: None, "kind": None, "note": "a"},
    {AREA: 9, "rooms": 4, SOLD: "2002-01-01", "kind": "b", "note": "b"},
]


def live(times: int) -> ServedModel:
    model = ServedModel(Path("champion"), "model", 1000)
    for _ in range(times):
        model.predict(model.records.from_rows(RECORDS, str))
    return model


@pytest.mark.usefixtures("workplace")
def test_rows_of_a_delivery_are_counted_as_a_server_counts_them() -> None:
    bundle, model = load_bundle(Path("champion")), live(1)
    frame = pd.DataFrame(RECORDS)
    frame[SOLD] = (pd.to_datetime(frame[SOLD]) - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    numbers = frame[bundle.schema.numbers].astype("float32")
    frame = pd.concat([numbers, frame[bundle.schema.categories].astype("str").fillna("")], axis=1)
    reference = read_reference(Path("champion"))
    assert of_rows(bundle, reference, frame) == request_counts(read_page(page(model.metrics), bundle.hash), reference)


def test_pages_of_several_replicas_are_added_up(slipway: Run, workplace: Path) -> None:
    for name, times in {"a": 3, "b": 7}.items():
        (workplace / name).write_text(page(live(times).metrics))
    result = slipway("drift", "--metrics", "a", "--metrics", "b")
    assert (result.code, "ALARM" in result.out) == (1, True), result.err
    drift = Drift.read(DRIFT)
    assert (drift.rows, drift.champion) == (30, folder_hash(workplace / "champion"))
    (note,) = (each for each in drift.moved if each.name == "note")
    assert note.unseen == pytest.approx(1 / 3)
    shown = {line.split()[0]: line for line in result.out.splitlines() if line.strip()}
    assert all(word in shown["note"] for word in (f"{note.psi:.3f}", "33.3%", "drifted"))
    assert "a date" in result.out


def test_no_alarm_is_exit_code_0(slipway: Run, workplace: Path) -> None:
    (workplace / "a").write_text(page(live(1).metrics))
    result = slipway("drift", "--metrics", "a")
    assert (result.code, "NO ALARM: 3 rows are too few to judge" in result.out) == (0, True), result.err


def test_invalid_input_fails_with_one_sentence_and_removes_an_earlier_result(slipway: Run, workplace: Path) -> None:
    (workplace / "a").write_text(page(live(1).metrics))
    (workplace / "other").write_text((workplace / "a").read_text().replace(folder_hash(Path("champion")), "f" * 32))
    (workplace / "binary").write_bytes(b"\xff\xfe")
    (workplace / "huge").write_bytes(b"#" * (4 * 2**20 + 1))
    assert slipway("drift", "--metrics", "a").code == 0
    for arguments, words in {
        ("--metrics", "other"): f"other is of the bundle '{'f' * 32}'",
        ("--metrics", "a", "--metrics", "./a"): "names a file twice",
        ("--metrics", "binary"): "binary cannot be read",
        ("--metrics", "huge"): "huge has more than",
        ("--metrics", "gone"): "gone cannot be read",
        ("--metrics", "a", "--delivery", "1997H1"): "cannot be combined",
        ("--prometheus", "nowhere"): "'nowhere' is not the address",
        ("--prometheus", "http://127.0.0.1:1", "--window", "1y"): "'1y' is not a length of time",
        ("--prometheus", "http://127.0.0.1:1"): "does not answer",
        (): "drift.prometheus",
    }.items():
        result = slipway("drift", *arguments)
        assert (result.code, words in result.err) == (2, True), result
        assert len(result.err.splitlines()) == 1
        assert not DRIFT.exists()


def test_without_a_champion_the_advice_is_to_release_one_or_to_pull_it(slipway: Run, workplace: Path) -> None:
    shutil.rmtree(workplace / "champion")
    for verb in ("drift", "serve"):
        result = slipway(verb)
        assert (result.code, "No model is live yet; merge a pull request to release one" in result.err) == (2, True)
    assert "`slipway serve build/bundle`" in slipway("serve").err
    (workplace / "champion").mkdir()  # as DVC leaves it before the first release
    Release.model_validate({"champion": "0" * 32}).write(artifacts.RELEASE)
    for verb in ("drift", "serve"):
        assert slipway(verb).err == "slipway: champion/ is not in this clone; run `dvc pull champion.dvc`.\n"


def test_a_delivery_is_counted_like_requests(clone: Callable[[str], Repository]) -> None:
    """In the newest deliveries of the sample, walls are recorded in another way. Other features have not drifted."""
    repository = clone("delivery")
    repository.must("dvc", "pull", "--quiet", "data.dvc", "champion.dvc")
    result = repository.run("slipway", "drift", "--delivery", "1997H1")
    assert result.code == 1, result.err
    moved = json.loads((repository.path / DRIFT).read_text())["moved"]
    assert [each["name"] for each in moved if each["alarm"]] == ["wall"]
    assert repository.run("slipway", "drift", "--delivery", "1993H1").code == 0
    assert "has no delivery ../params" in repository.run("slipway", "drift", "--delivery", "../params").err
