"""Every mistake in params.yaml is reported with its line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.config import FORMS, Params, has_secret, load_params, replace_settings
from slipway.errors import InputError
from tests.slipway.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text()
KEYS = [(i, line) for i, line in enumerate(TEXT.splitlines(), 1) if ":" in line.split("#")[0]]


def problem(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as caught:
        load_params(path)
    return str(caught.value)


def line_of(part: str) -> int:
    return next(i for i, line in enumerate(TEXT.splitlines(), 1) if part in line)


def test_the_params_of_this_repository_are_valid() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.task.kind == "regression"
    assert params.train.threads == 1


def test_a_misspelt_section_is_reported_before_the_section_that_it_leaves_missing(tmp_path: Path) -> None:
    sentence = problem(tmp_path, TEXT.replace("\ngate:", "\ngates:"))
    assert f"line {line_of('gate:')}: `gates` is not a valid key; correct its spelling" in sentence


def test_a_split_by_time_refuses_a_share(tmp_path: Path) -> None:
    sentence = problem(tmp_path, TEXT.replace("  days: 60", "  share: 0.3"))
    assert f"line {line_of('split:')}: `split`: a split by time has no `share`" in sentence


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  days: 60", "  dayz: 60", "`split.dayz` is not a valid key"),
        ("  days: 60", "  days: sixty", "`split.days`: input should be a valid integer"),
        ("  days: 60", "  days: -1", "`split.days`: input should be greater than 0"),
        ("  by: time", "  by: tide", "`split.by`: input should be 'time', 'key', 'group' or 'time_and_group'"),
        ("loss: mean_absolute_error", "loss: log_loss", "`task`: the loss of a regression is one of"),
        (
            "timeout_seconds: 600",
            "timeout_seconds: 3600",
            "`release.timeout_seconds`: input should be less than or equal",
        ),
        ("confidence: 0.95", "confidence: 95", "`gate.confidence`: input should be less than 1"),
        ("{at_least: 0.6}", "{at_leest: 0.6}", "`gate.floors.r_squared.at_leest` is not a valid key"),
        ("equality_tolerance: 1.0e-5", "equality_tolerance: .inf", "`gate.equality_tolerance`"),
        (
            "equality_tolerance: 1.0e-5",
            "equality_tolerance: 5",
            "`gate.equality_tolerance`: input should be less than or equal to 0.001",
        ),
        ("parity_tolerance: 1.0e-4", "parity_tolerance: .inf", "`train.parity_tolerance`"),
        ("{at_least: 0.6}", "{at_least: -.inf}", "`gate.floors.r_squared.at_least`"),
        (
            "  margin: 0 #",
            "  margin: -0.01 #",
            "`gate.margin`: a negative margin ships a model that may be worse",
        ),
        (
            "  margin: 0 #",
            "  margin: 0\n  margin_reason: x #",
            "`gate.margin`: `gate.margin_reason` is set, but the",
        ),
        ("  margin: 0 #", "  margin_reason: ''\n  margin: -0.1 #", "`gate.margin_reason`"),
        ("  margin: 0 #", "  margin: -1\n  margin_reason: x #", "`gate.margin`: input should be greater than -1"),
        ("when_held: wait", "when_held: merge", "`ingest.when_held`: input should be"),
        ("    margin: 0.05", "    margin: 1.0e+9", "`gate.slices.margin`: input should be less than 1"),
        ("  days: 60", "  days: 99999999999999", "`split.days`"),
        ("[1920, 1950, 1975]", "[]", "`evaluate.slices.year_built`"),
        ("[1920, 1950, 1975]", "edges", "`evaluate.slices.year_built`: input should be 'values'"),
        ("    r_squared: {", "    r_sqared: {", "`gate.floors.r_sqared` is not a metric of this regression, whose"),
        ("    r_squared: {", "    f1_macro: {", "mean_absolute_error, mean_squared_error, root_mean_squared_error, "),
        (
            "  threads: 1",
            "  check_determinism: no\n  threads: 1",
            "`train.check_determinism`: it must be true or false",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    sentence = problem(tmp_path, TEXT.replace(old, new))
    assert words in sentence
    expected = line_of("task:") if "`task`" in words else line_of(old)
    assert f"line {expected}:" in sentence


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("{wal: 0.5}", ".wal` needs the same key in `evaluate.slices`, which has stories, wall, garage, year_built, "),
        ("{wall & garage: 0.5}", ".wall & garage` needs the same key in `evaluate.slices`"),
        ("{wall: {positive: 0.5}}", ".wall.positive`: input should be 'positive_rate', 'true_positive_rate' or 'false"),
        ("{wall: large}", ".wall`: input should be a valid number"),
    ],
)
def test_a_limit_for_differences_names_slices_and_rates(tmp_path: Path, limits: str, words: str) -> None:
    old = "  slices:\n    minimum_rows: 40"
    new = f"  slices:\n    maximum_difference: {limits}\n    minimum_rows: 40"
    sentence = problem(tmp_path, TEXT.replace(old, new))
    line = TEXT[: TEXT.index(old)].count("\n") + 2
    assert sentence.startswith(f"params.yaml, line {line}: `gate.slices.maximum_difference")
    assert words in sentence


@pytest.mark.parametrize(("word", "expected"), [("on", True), ("off", False), ("true", True)])
def test_the_check_of_determinism_can_be_on_or_off(tmp_path: Path, word: str, expected: bool) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace("  threads: 1", f"  check_determinism: {word}\n  threads: 1"))
    assert load_params(tmp_path / "params.yaml").train.check_determinism is expected


def test_a_missing_key_is_reported(tmp_path: Path) -> None:
    sentence = problem(tmp_path, TEXT.replace("  experiment: house-prices\n", "  {}\n"))
    assert "`record.experiment` is missing" in sentence
    assert f"line {line_of('record:')}:" in sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: [1, 2", "line 1: not YAML"),
        (b"task: \xff\n", "byte 6 is not UTF-8"),
        (b"task: \x00\n", "not YAML"),
        ("", "line 1: it must contain keys with values"),
        ("task:\n  kind: regression\ntask:\n  kind: regression\n", "not YAML"),
    ],
)
def test_a_file_that_is_not_valid_yaml_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in problem(tmp_path, text)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params\.yaml is missing in .*; change to a repository"):
        load_params(tmp_path / "params.yaml")


def test_a_split_by_group_needs_its_column(tmp_path: Path) -> None:
    assert "`column`" in problem(tmp_path, TEXT.replace("  by: time", "  by: group"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("max_itre: [10, 20]", "`tune.settings.max_itre` is not a setting with one value in `train.settings`"),
        ("max_iter.deep: [10, 20]", "`tune.settings.max_iter.deep` is not a setting with one value"),
        ("max_iter: {low: 20, high: 20}", "`low` must be smaller than `high`"),
        ("max_iter: {low: 0, high: 20, log: true}", "`log` needs `low` above 0, and no `step`"),
        ("max_iter: {low: 1, high: 20, step: 0.5}", "`step` must be above 0, and a whole number if both ends are"),
        ("max_iter: [10]", "`tune.settings.max_iter`: list should have at least 2 items"),
        ("max_iter: [10, 20, 10]", "`tune.settings.max_iter`: a choice is in the list twice"),
        ("max_iter: [.nan, 1]", "`tune.settings.max_iter"),
        ("max_iter: {low: 1, high: 10, step: 20}", "`step` is too large or too small for the range"),
        ("learning_rate: {low: 0.0, high: 1.0, step: 1.0e-320}", "`step` is too large or too small for the range"),
        ("learning_rate: {low: -1.0e+308, high: 1.0e+308}", "the range from `low` to `high` is too wide"),
        (f"max_iter: {{low: 1, high: 1{400 * '0'}}}", "a whole number must be at most 9,007,199,254,740,992"),
        (f"learning_rate: {{low: 0.5, high: 1{400 * '0'}}}", "a whole number must be at most"),
        ("max_iter: {low: 1}", "`tune.settings.max_iter.high` is missing below this line"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused(tmp_path: Path, setting: str, words: str) -> None:
    assert words in problem(tmp_path, f"{TEXT}\ntune: {{trials: 3, settings: {{{setting}}}}}\n")


def test_other_settings_change_only_their_values_in_the_text() -> None:
    changed = replace_settings(TEXT, {"learning_rate": 1e-05, "early_stopping": True})
    lines = zip(TEXT.splitlines(), changed.splitlines(), strict=True)
    comment = " # early stopping would exclude a tenth of the training rows, and so some of the newest prices"
    assert [(old, new) for old, new in lines if old != new] == [
        ("    learning_rate: 0.08", "    learning_rate: 1.0e-05"),
        (f"    early_stopping: false{comment}", f"    early_stopping: true{comment}"),
    ]
    flow = "train: {settings: {a: 'x', b: {c: 1, d: [2]}}} # why\n"
    assert replace_settings(flow, {"b.c": None, "a": "true"}) == (
        "train: {settings: {a: 'true', b: {c: null, d: [2]}}} # why\n"
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{engine: dask}", "`engine: dask` needs `address`"),
        ("{address: 'tcp://dask.example.com:8786'}", "`address` needs `engine: dask`"),
        ("{engine: dask, address: 'tcp://dask.example.com:8786', processes: 2}", "`processes` applies only to"),
        ("{engine: dask, address: dask.example.com}", "`compute.address`"),
        ("{engine: dask, address: 'tcp://me:secret@dask.example.com:8786'}", "`compute.address`"),
        ("{engine: ray}", "`compute.engine`: input should be 'local' or 'dask'"),
        ("{processes: 0}", "`compute.processes`"),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused(tmp_path: Path, value: str, words: str) -> None:
    sentence = problem(tmp_path, f"{TEXT}\ncompute: {value}\n")
    assert words in sentence
    assert "secret" not in sentence


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KEYS), st.text("abcdefgh", min_size=9, max_size=12))
def test_a_misspelt_key_is_always_refused(
    tmp_path_factory: pytest.TempPathFactory, key: tuple[int, str], name: str
) -> None:
    """Any misspelt key is refused, except in the free-form `settings` and `slices`."""
    number, line = key
    indent = len(line) - len(line.lstrip())
    lines = TEXT.splitlines()
    lines[number - 1] = f"{' ' * indent}{name}:{line.split(':', 1)[1]}"
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text("\n".join(lines))
    free = range(line_of("settings:") + 1, line_of("evaluate:")), range(line_of("slices: #") + 1, line_of("gate:"))
    if any(number in each for each in free):
        load_params(path)
    else:
        with pytest.raises(InputError):
            load_params(path)


LOG = {"address": "s3://logs/houses", "image": "ghcr.io/team/log-shipper:1"}
NO_ADDRESS = ": it must be a URL such as s3://logs/houses, or an absolute path; correct the value."
NO_IMAGE = ": it must be the name of an image with a tag or a digest, such as ghcr.io/your-team/log-shipper:1;"


@pytest.mark.parametrize(
    ("section", "key", "words"),
    [
        ("text", "", ": it must contain keys with values; correct it."),
        ([1], "", ": it must contain keys with values; correct it."),
        ({}, ".address", " is missing below this line; add it."),
        ({"address": LOG["address"]}, ".image", " is missing below this line; add it."),
        ({**LOG, "adress": "s3://logs"}, ".adress", " is not a valid key; correct its spelling or remove it."),
        ({**LOG, "address": None}, ".address", ": input should be a valid string; correct the value."),
        ({**LOG, "address": 1}, ".address", ": input should be a valid string; correct the value."),
        ({**LOG, "address": ""}, ".address", ": string should have at least 1 character; correct the value."),
        ({**LOG, "address": "logs/houses"}, ".address", NO_ADDRESS),
        ({**LOG, "address": "s3://logs/my houses"}, ".address", NO_ADDRESS),
        ({**LOG, "address": "s3://me:secret@logs"}, ".address", ": the address contains a password; put the"),
        ({**LOG, "image": "log-shipper"}, ".image", NO_IMAGE),
        ({**LOG, "image": "ghcr.io/team/log-shipper"}, ".image", NO_IMAGE),
        ({**LOG, "image": "ghcr.io/team/log-shipper:1@sha256:12"}, ".image", NO_IMAGE),
        ({**LOG, "share": 0}, ".share", ": input should be greater than 0; correct the value."),
        ({**LOG, "share": 1.5}, ".share", ": input should be less than or equal to 1; correct the value."),
        ({**LOG, "share": float("nan")}, ".share", ": input should be a finite number; correct the value."),
        ({**LOG, "share": "0.5"}, ".share", ": input should be a valid number; correct the value."),
        ({**LOG, "share": True}, ".share", ": input should be a valid number; correct the value."),
        ({**LOG, "keep_days": 0}, ".keep_days", ": input should be greater than or equal to 1; correct the value."),
        ({**LOG, "keep_days": -1}, ".keep_days", ": input should be greater than or equal to 1; correct the value."),
        ({**LOG, "keep_days": 10**6}, ".keep_days", ": input should be less than or equal to 36500; correct the"),
        ({**LOG, "keep_days": 1.5}, ".keep_days", ": input should be a valid integer; correct the value."),
    ],
)
def test_an_invalid_prediction_log_is_reported_with_its_key(tmp_path: Path, section: Any, key: str, words: str) -> None:
    text = f"{TEXT}prediction_log: {json.dumps(section)}\n"
    sentence = problem(tmp_path, text.replace("NaN", ".nan"))
    assert sentence.startswith("params.yaml, line ")
    assert f"`prediction_log{key}`{words}" in sentence
    assert "secret" not in sentence
    assert len(sentence.splitlines()) == 1


@pytest.mark.parametrize("address", ["s3://logs/houses", "gs://logs", "file:///mnt/logs", "/mnt/logs", "az://logs"])
def test_a_prediction_log_goes_to_a_url_or_an_absolute_path(tmp_path: Path, address: str) -> None:
    (tmp_path / "params.yaml").write_text(f"{TEXT}prediction_log: {json.dumps({**LOG, 'address': address})}\n")
    found = load_params(tmp_path / "params.yaml").prediction_log
    assert found
    assert (found.address, found.share, found.keep_days) == (address, 1.0, None)


def test_each_pattern_is_explained() -> None:
    """A message with a regular expression would not help."""
    schema = json.dumps(Params.model_json_schema())
    patterns = {json.loads(each) for each in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', schema)}
    assert patterns == {*FORMS}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://ada:hunter2@example.com/a", True),
        ("https://hunter2@example.com/a", True),
        ("https://example.com/a?sv=1&sig=hunter2", True),
        ("postgresql://ada:hunter2@db/sales", True),
        ("postgresql://db/sales?user=ada&password=hunter2", True),
        ("abfs://data@account/a?sas_token=hunter2", True),
        ("ssh://git@example.com:22/a", False),
        ("git@example.com:a/b", False),
        ("postgresql+psycopg://ada@db/sales?sslmode=require", False),
        ("abfs://data@account.dfs.core.windows.net/a", False),
        ("s3://deliveries/a:b", False),
        ("sqlite:///mlflow.db", False),
        ("", False),
    ],
)
def test_addresses_with_secrets_are_recognised(address: str, expected: bool) -> None:
    assert has_secret(address) is expected
