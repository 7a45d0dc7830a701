"""Decay is found on requests whose truth is known, period by period."""

import importlib
import json
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from slipway import artifacts
from slipway.artifacts import Holdout, Release
from slipway.bundle import SCHEMA, TRAINING_ROWS, load_bundle
from slipway.config import Live, Params, load_params
from slipway.errors import InputError
from slipway.integrations.label_source import LabelSource
from slipway.integrations.log_store import LogStore
from slipway.monitoring import alert_issue, join_log, live_decay
from slipway.monitoring.alert_issue import Checked, Finding
from slipway.monitoring.decay import DeliveredRows
from slipway.monitoring.live_decay import LiveDecay, champion_at_release, earlier_periods, newest_period
from slipway.monitoring.live_performance import as_date, maturity
from slipway.monitoring.live_text import sentences
from slipway.pipeline.columns import SLICE, TIME
from slipway.pipeline.decay import ERROR, LOSS, TRUTH, AtRelease, judge, smallest_found
from slipway.pipeline.row_ids import row_id_scheme, row_ids
from slipway.pipeline.validate import accepted_rows, check_deliveries
from tests.slipway.conftest import ROOT
from tests.slipway.monitoring.test_join_log import START, TODAY, area, date_of, labels_of, log_and_ship, model_of_odd
from tests.slipway.serving import odd
from tests.slipway.serving.odd import AREA, expected
from tests.slipway.serving.test_prediction_log import marked

LABELS = LabelSource("labels.csv")
FIRST = 10
"""The first day of a period, because START + 10 is a multiple of `LENGTH`."""
LENGTH = 15
AREAS = [i / 20 for i in range(120)]
DAYS = [FIRST + i // 8 for i in range(120)]
Joined = Callable[..., LiveDecay]


@pytest.fixture
def params() -> Params:
    found = load_params(ROOT / "params.yaml")
    evaluate = found.evaluate.model_copy(update={"slices": {"kind": "values"}})
    decay = found.decay.model_copy(update={"minimum_rows": 50})
    live = Live(log="shipped", labels="labels.csv", days=LENGTH)
    return found.model_copy(update={"evaluate": evaluate, "decay": decay, "live": live})


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a released champion and its log. The first row of `AREAS` is one of its training rows."""
    folder = tmp_path_factory.mktemp("released")
    (folder / "odd").mkdir()
    bundle = marked(odd.write_bundle(folder / "odd"), folder).rename(folder / artifacts.CHAMPION)
    model = model_of_odd()
    schema = json.loads((bundle / SCHEMA).read_text()) | {"row_ids": row_id_scheme(model)}
    (bundle / SCHEMA).write_text(json.dumps(schema))
    np.save(bundle / TRAINING_ROWS, row_ids(pd.DataFrame({AREA: AREAS[:1]}), model))
    holdout = Holdout(rows=200, first=None, last=None)
    (folder / artifacts.RELEASE).parent.mkdir()
    Release(champion=load_bundle(bundle).hash, loss="mean_absolute_error", value=1.0, holdout=holdout).write(
        folder / artifacts.RELEASE
    )
    rows = [(day, area(each, kind="ab"[i % 2])) for i, (day, each) in enumerate(zip(DAYS, AREAS, strict=True))]
    with pytest.MonkeyPatch.context() as patch:
        log_and_ship(bundle, folder / "shipped", rows, patch)
    return folder


@pytest.fixture(autouse=True)
def champion(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(released, tmp_path, dirs_exist_ok=True)
    return artifacts.CHAMPION


def at_release(bundle: Path) -> AtRelease:
    """Return a release at which all errors were 0.9 or 1.1, in both directions."""
    scored = rows_of(np.tile([0.9, 1.1, -0.9, -1.1], 60), np.arange(240) % 40)
    release = Release.read(artifacts.RELEASE)
    loaded = load_bundle(bundle)
    return AtRelease(release, loaded, scored, loaded.training_rows())


def rows_of(errors: np.ndarray, days: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            LOSS: np.abs(errors),
            f"{ERROR}price": errors,
            f"{TRUTH}price": 1e6,
            TIME: (START - 100 + days).astype("datetime64[D]").astype("datetime64[s]"),
            f"{SLICE}kind": np.where(np.arange(len(errors)) % 3, "a", "b"),
        }
    )


def labels(times: float, of_b: float = 1.0, known_after: int = 0) -> pd.DataFrame:
    """Return the truth of each request. Its error is 0.9 or 1.1, multiplied by `times`, and in one slice by `of_b`."""
    errors = [(0.9 + 0.2 * (i // 4 % 2)) * (1 - 2 * (i // 2 % 2)) * times * (of_b if i % 2 else 1) for i in range(120)]
    truth = [
        expected(area(each, kind="ab"[i % 2])) + error
        for i, (each, error) in enumerate(zip(AREAS, errors, strict=True))
    ]
    return labels_of(*((each, price, day + known_after) for each, price, day in zip(AREAS, truth, DAYS, strict=True)))


@pytest.fixture
def joined(params: Params, champion: Path) -> Joined:
    """Join the requests with labels, and return the decay."""

    def run(found: pd.DataFrame, **settings: Any) -> LiveDecay:
        found.to_csv("labels.csv", index=False)
        changed, at = params.model_copy(update=settings), at_release(champion)
        live = join_log.run(changed, model_of_odd(), TODAY, LogStore("shipped"), LABELS, bundle=at.bundle, champion=at)
        assert live.decay is not None
        assert live.alarm == live.decay.alarm
        assert any(each.startswith("decay: ") for each in sentences(live))
        return live.decay

    return run


def test_an_alarm_names_the_bundle_the_days_and_the_slice(joined: Joined, champion: Path) -> None:
    decay = joined(labels(1.0, of_b=1.5))
    assert decay.alarm
    period = f"{date_of(FIRST)} to {date_of(FIRST + LENGTH - 1)}"
    assert decay.reason.startswith(f"bundle {load_bundle(champion).hash[:12]}, requests of {period}: ")
    assert "the worst slice is kind b (+5" in decay.reason
    assert f"the worst days are those from {date_of(FIRST)[:8]}" in decay.reason


def test_a_loss_as_at_release_raises_no_alarm(joined: Joined) -> None:
    decay = joined(labels(1.0))
    assert not decay.alarm
    assert decay.found is not None
    assert decay.found.whole.rows == 119  # without the row that the champion was trained on
    assert decay.found.trained_on == 1
    assert decay.found.whole.loss.value == pytest.approx(1.0, abs=0.01)
    assert {(part.column, part.value) for part in decay.found.slices} == {("kind", "a"), ("kind", "b")}
    assert decay.smallest is not None
    assert f"a rise of {decay.smallest:.1%} would have been found with a probability of 90%" in decay.reason


def test_a_bias_in_one_direction_is_an_alarm(joined: Joined) -> None:
    low = labels(1.0)
    low["price"] += 1e5
    decay = joined(low)
    assert decay.alarm
    assert "answers are too low by " in decay.reason


def test_a_period_with_young_days_is_not_judged(joined: Joined) -> None:
    """Truths arrive after 14 days, and those of the last days of the period are not known yet."""
    found = labels(9.0, known_after=14)
    decay = joined(found[found["known_at"] < date_of(FIRST + LENGTH + 9)])
    assert not decay.alarm
    assert decay.found is None
    assert decay.reason.startswith("the champion has no request with a known truth from ")


def test_a_log_without_the_column_of_groups_is_not_judged(joined: Joined, params: Params) -> None:
    split = params.split.model_copy(update={"by": "group", "column": "owner"})
    decay = joined(labels(9.0), split=split)
    assert (decay.alarm, decay.reason) == (False, "split.column is owner, which the log does not contain")


def test_the_groups_of_the_split_are_blocks(joined: Joined, params: Params) -> None:
    """The two kinds are too few groups."""
    split = params.split.model_copy(update={"by": "group", "column": "kind"})
    decay = joined(labels(9.0), split=split)
    assert decay.found is not None
    assert decay.found.whole.loss.interval is None
    assert "2 groups" in decay.reason


def test_each_day_belongs_to_one_period() -> None:
    days = np.repeat(np.arange(300), 2)
    curve = maturity(days, np.tile([0, 7], 300), 299)
    periods = {newest_period(30, as_of, curve) for as_of in range(100, 299)}
    assert periods == {(first, first + 29) for first in range(60, 270, 30)}
    assert newest_period(30, 95, curve) == (30, 59)  # the days until 89 are young until day 96
    assert newest_period(30, 96, curve) == (60, 89)
    assert newest_period(30, 20, curve) is None


def test_periods_that_were_not_reported_come_in_order() -> None:
    newest = (90, 119)
    assert earlier_periods(newest, 0, None) == [(0, 29), (30, 59), (60, 89)]
    assert earlier_periods(newest, 35, None) == [(30, 59), (60, 89)]  # the log starts within a period
    assert earlier_periods(newest, 0, as_date(59)) == [(60, 89)]
    assert earlier_periods(newest, 0, as_date(89)) == earlier_periods(newest, 0, as_date(119)) == []
    assert earlier_periods(newest, 90, None) == []


@pytest.fixture
def later(params: Params, champion: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A log of three periods, whose truths are all known. The loss has risen in the first and the second period."""
    rows, found = list[tuple[int, dict[str, Any]]](), []
    for period, times in enumerate((3.0, 2.0, 1.0)):
        others = [area(each + 0.01 * period, kind="ab"[i % 2]) for i, each in enumerate(AREAS)]
        before = [expected(area(each, kind="ab"[i % 2])) for i, each in enumerate(AREAS)]
        days = [day + LENGTH * period for day in DAYS]
        rows += zip(days, others, strict=True)
        of_period = labels(times)
        of_period["price"] += [expected(row) - price for row, price in zip(others, before, strict=True)]
        of_period[AREA] = [row[AREA] for row in others]
        of_period["known_at"] = [date_of(day) for day in days]
        found.append(of_period)
    shutil.rmtree("shipped")
    log_and_ship(champion, Path("shipped").absolute(), rows, monkeypatch)
    pd.concat(found).to_csv("labels.csv", index=False)
    return params


def test_each_period_is_reported_once_after_a_long_stop(
    later: Params, champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_issue, "_update_issue", lambda *_: "updated")
    monkeypatch.setattr(alert_issue, "_decay", lambda _: [])
    monkeypatch.setattr(alert_issue, "_drift", lambda _: [])
    monkeypatch.setattr(alert_issue, "champion_at_release", lambda *_: at_release(champion))
    ends = [date_of(FIRST + LENGTH * i - 1) for i in (1, 2, 3)]
    params = later.model_copy(update={"ingest": later.ingest.model_copy(update={"source": ""})})

    def reported(**environ: str) -> list[tuple[bool, str]]:
        said = alert_issue.monitor(params, model_of_odd(), TODAY, environ)
        found = [re.search(r"^decay on requests: (ALARM|no alarm): .* to (\S+): ", each) for each in said]
        return [(each[1] == "ALARM", each[2]) for each in found if each]

    everything = [(True, ends[0]), (True, ends[1]), (False, ends[2])]
    assert reported() == everything  # without an issue
    assert reported(GITHUB_TOKEN="t") == everything
    assert reported(GITHUB_TOKEN="t") == everything[2:]
    Path("shipped/_reported.json").write_text("{")
    with pytest.raises(InputError, match=r"shipped/_reported\.json is damaged; delete it"):
        reported(GITHUB_TOKEN="t")


def test_each_period_is_delivered_after_a_long_stop(later: Params) -> None:
    assert later.live is not None
    live = later.live.model_copy(update={"deliver": "requests-"})
    ingest = later.ingest.model_copy(update={"source": "source"})
    params = later.model_copy(update={"ingest": ingest, "live": live})
    files = [f"requests-{date_of(FIRST + LENGTH * i - 1)}.parquet" for i in (1, 2, 3)]

    def delivered() -> tuple[str, ...]:
        return join_log.run(params, model_of_odd(), TODAY, LogStore("shipped"), LABELS).delivered

    assert delivered() == tuple(files)
    assert delivered() == ()
    Path("source", files[0]).unlink()  # it was ingested
    Path("source", files[2]).unlink()
    assert delivered() == tuple(files[2:])


def test_the_promised_rise_is_where_the_alarm_begins(params: Params) -> None:
    random = np.random.default_rng(0)
    now, then = (rows_of(random.normal(0, 1, 80 * days), np.repeat(np.arange(days), 80)) for days in (30, 60))
    value = float(then[LOSS].mean())
    holdout = Holdout(rows=len(then), first=None, last=None)
    release = Release(champion="b", loss="mean_absolute_error", value=value, holdout=holdout)
    start = smallest_found(now, then, release, params, probability=0.5)
    assert start is not None
    for rise, alarm in ((start * 0.98, False), (start * 1.02, True)):
        scaled = now.assign(**{LOSS: now[LOSS] * value / now[LOSS].mean() * (1 + rise)})
        assert judge("", scaled, then, release, params).whole.loss.beyond == alarm
    more = smallest_found(now, then, release, params)
    assert more is not None
    assert more > start


def test_the_benchmark_finds_a_promised_rise_and_raises_no_false_alarm(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    found = importlib.import_module("benchmarks.live_performance").simulate(50, params, trials=12)
    assert (found.none, found.margin) == (0.0, 0.0)
    assert found.as_promised > 0.6
    assert found.promised > 0.05


# Deliveries of requests


def test_the_requests_of_a_period_are_delivered_once(params: Params) -> None:
    model = model_of_odd()
    assert params.live is not None
    ingest = params.ingest.model_copy(update={"source": "source"})
    live = params.live.model_copy(update={"deliver": "requests-"})
    params = params.model_copy(update={"ingest": ingest, "live": live})
    found = labels(1.0).drop(index=7)
    found.to_csv("labels.csv", index=False)
    name = f"requests-{date_of(FIRST + LENGTH - 1)}.parquet"
    log = LogStore("shipped")
    live_of = join_log.run(params, model, TODAY, log, LABELS)
    assert live_of.delivered == (name,)
    assert f"{name} was written to the source of deliveries" in sentences(live_of)
    rows = accepted_rows(list(check_deliveries(Path("source"), model, params.validate_, date(2026, 1, 1))))
    delivered, truth = rows.set_index(AREA)["price"].sort_index(), found.set_index(AREA)["price"].sort_index()
    pd.testing.assert_series_equal(delivered, truth)
    assert set(rows["delivery"]) == {name.removesuffix(".parquet")}
    found.tail(99).to_csv("labels.csv", index=False)
    before = Path("source", name).read_bytes()
    assert join_log.run(params, model, TODAY, log, LABELS).delivered == ()
    assert Path("source", name).read_bytes() == before


def test_requests_are_delivered_as_files_only() -> None:
    text = (ROOT / "params.yaml").read_text().replace("  source: sample/source", "  source: x\n  format: delta")
    Path("params.yaml").write_text(text + "\nlive:\n  log: a\n  labels: b\n  deliver: requests-\n")
    with pytest.raises(InputError, match="must be a folder of files"):
        load_params(Path("params.yaml"))


@pytest.mark.parametrize("setting", ["log", "labels", "joined"])
def test_an_address_with_a_password_is_refused(setting: str) -> None:
    addresses = {"log": "s3://a", "labels": "s3://b"} | {setting: "ftp://ada:geheim@host/logs"}
    text = (ROOT / "params.yaml").read_text() + f"\nlive: {json.dumps(addresses)}\n"
    Path("params.yaml").write_text(text)
    with pytest.raises(InputError, match="the address contains a password") as error:
        load_params(Path("params.yaml"))
    assert "geheim" not in str(error.value)


# In `slipway monitor`


def test_monitor_lists_decay_and_skew_of_requests(params: Params, champion: Path) -> None:
    model, today = model_of_odd(), date(2026, 1, 1)
    assert alert_issue.check_requests(Checked(params.model_copy(update={"live": None}), model, today, {})) == []
    labels(2.0).to_csv("labels.csv", index=False)
    skew, decay = alert_issue.check_requests(Checked(params, model, today, {}))
    bundle = load_bundle(champion).hash[:12]
    assert skew == Finding(
        "training-serving skew", False, f"all 120 answers of bundle {bundle} are those of the pipeline"
    )
    assert (decay.check, decay.alarm) == ("decay on requests", True)
    assert decay.reason.startswith(f"bundle {bundle}, requests of {date_of(FIRST)} to {date_of(FIRST + LENGTH - 1)}: ")


def test_texts_of_clients_are_plain_in_the_issue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a slice can be a value of a request. GitHub refuses bodies of more than 65,536 characters."""
    hostile = "the worst slice is kind <img src=x> @team [x](http://example.com) " + "`|" * 100_000
    bodies, run = list[str](), {"GITHUB_REPOSITORY": "team/houses", "GITHUB_RUN_ID": "1"}
    repository = SimpleNamespace(
        create_issue=lambda _, body, labels: bodies.append(body) or SimpleNamespace(html_url=str(labels))
    )
    monkeypatch.setattr(alert_issue.github, "start_workflow", lambda *_: None)
    alert_issue._open_or_update(repository, None, [Finding("skew", True, hostile)], run)  # type: ignore[arg-type]
    (body,) = bodies
    assert re.findall(r"(?<!\\)<img|@team|(?<!\\)\[x", body) == []
    assert len(body) < 10_000


def test_the_checks_of_the_monitor_read_the_deliveries_once(
    params: Params, champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are also released before the join, which needs the memory."""
    read, rows = list[str](), pd.DataFrame({"delivery": ["1"]})
    artifacts.DATA.mkdir()
    (artifacts.DATA / "1.csv").touch()
    monkeypatch.setattr(
        alert_issue.decay, "delivered_rows", lambda *_: read.append("read") or DeliveredRows(("1",), rows)
    )
    monkeypatch.setattr(alert_issue.decay, "decay_on", lambda *_: None)
    monkeypatch.setattr(live_decay, "at_release", lambda found, *_: at_release(champion) if found is rows else None)
    monkeypatch.setattr(alert_issue.process, "run", lambda *_: None)
    labels(1.0).to_csv("labels.csv", index=False)
    ingest = params.ingest.model_copy(update={"source": ""})
    checked = Checked(params.model_copy(update={"ingest": ingest}), model_of_odd(), date(2026, 1, 1), {})
    alert_issue._decay(checked)
    assert {each.check for each in alert_issue.check_requests(checked)} == {
        "training-serving skew",
        "decay on requests",
    }
    assert read == ["read"]
    assert "deliveries" not in vars(checked)


def test_another_champion_than_the_released_one_is_not_judged(params: Params, champion: Path) -> None:
    artifacts.RELEASE.write_text(json.dumps({"champion": "other"}))
    with pytest.raises(InputError, match=r"but metrics/release\.json names other"):
        champion_at_release(params, model_of_odd(), pytest.fail, load_bundle(champion))
