"""Fields that a bundle does not have: ignored in every protocol if `train.unknown_fields` is `ignore`, else refused."""

import json
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Image
from demo.fakes.replicas import Replicas
from slipway.artifacts import BUNDLE
from slipway.bundle import GOLDEN, Golden, Schema, folder_hash
from slipway.config import load_params
from slipway.contract import Model, load_model
from slipway.errors import InputError
from slipway.pipeline import split as split_stage
from slipway.pipeline import train, validate
from slipway.provenance import LABELS
from slipway.release.load_client import LoadClient
from slipway.serving.problems import Problem
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.records import Records
from slipway.serving.served_model import ServedModel
from tests.slipway.conftest import ROOT, TODAY, Result, edit
from tests.slipway.serving.conftest import Serve
from tests.slipway.serving.odd import AREA, ROW, SCHEMA_OF_IT, expected
from tests.slipway.serving.test_protocols import FULL, WAYS, columns, invoke, refused, split, tensors

UNKNOWN: list[Any] = ["new", '":', 1, 10**30, 1e308, True, None, [], [[1]], {}, {"a": {"b": [None]}}]


def test_very_many_unknown_fields_are_one_fault(odd_model: ServedModel, lenient_model: ServedModel) -> None:
    row = ROW | {f"field {number}": number for number in range(2_000)}
    for protocol, body, place in ((Predict, row, "#"), (Invocations, {"instances": [ROW, row]}, "#/instances/1")):
        content = json.dumps(body).encode()
        with pytest.raises(Problem, match=f"^{place}: the record has 2,005 fields, but the model reads 5; send only"):
            protocol(odd_model)(content)
        protocol(lenient_model)(content)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", UNKNOWN, ids=repr)
def test_an_unknown_field_with_any_value_is_ignored(
    lenient_model: ServedModel, monkeypatch: pytest.MonkeyPatch, way: str, value: Any
) -> None:
    rows = [{"before": value, **row, "after": value} for row in FULL]
    monkeypatch.setattr("tests.slipway.serving.test_protocols.FULL", rows)
    assert WAYS[way](lenient_model, rows) == [expected(row) for row in FULL]


@pytest.mark.parametrize("way", WAYS)
def test_without_the_setting_an_unknown_field_is_refused(
    odd_model: ServedModel, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    rows = [{**row, "after": "new"} for row in FULL]
    monkeypatch.setattr("tests.slipway.serving.test_protocols.FULL", rows)
    with pytest.raises(Exception, match=r"after|faults"):
        WAYS[way](odd_model, rows)


@pytest.mark.parametrize("rows", [FULL, FULL[:1]])
def test_faults_of_known_fields_are_still_listed_with_their_places(lenient_model: ServedModel, rows: Any) -> None:
    bad = [{"before": 1, **row, AREA: -1} for row in rows]
    place = AREA.replace("~", "~0").replace("/", "~1")
    last = len(rows) - 1
    for protocol, body, pointer in (
        (Predict, bad, f"#/{last}/{place}"),
        (Invocations, {"dataframe_records": bad}, f"#/dataframe_records/{last}/{place}"),
        (Invocations, split(bad), f"#/dataframe_split/data/{last}/1"),
        (Invocations, columns(bad), f"#/inputs/{place}/{last}"),
        (Infer, tensors(bad), f"#/inputs/1/data/{last}"),
    ):
        assert refused(protocol, lenient_model, body, 422).faults[-1].pointer == pointer


def test_a_missing_or_misspelt_required_field_is_still_refused(lenient_model: ServedModel) -> None:
    row = {("notes" if name == "note" else name): value for name, value in ROW.items()}
    for protocol, body in (
        (Predict, row),
        (Predict, [row, row]),
        (Invocations, split([row])),
        (Invocations, columns([row, row])),
        (Infer, tensors([row])),
    ):
        assert b"note" in refused(protocol, lenient_model, body, 422).body()


def test_a_duplicate_of_an_unknown_field_is_refused(lenient_model: ServedModel) -> None:
    """The body is not JSON that every reader understands in the same way."""
    body = json.dumps({**ROW, "new": 1})[:-1] + ', "new": 2}'
    assert "twice" in str(refused(Predict, lenient_model, body.encode(), 400))


def test_a_table_of_unknown_columns_only_still_has_its_rows(lenient_model: ServedModel) -> None:
    optional = tuple(each.model_copy(update={"required": False}) for each in SCHEMA_OF_IT.columns)
    lenient_model.schema = lenient_model.schema.model_copy(update={"columns": optional})
    lenient_model.records = Records(lenient_model.schema, 5)
    for body in ({"inputs": {"new": [1, 2]}}, split([{"new": 1}, {"new": 2}]), {"instances": [{"new": 1}, {}]}):
        assert invoke(lenient_model, body) == [0, 0]


def test_the_setting_is_part_of_the_bundle_only_if_it_is_set() -> None:
    """Otherwise the hash of every bundle would change."""
    assert "unknown_fields" not in json.loads(SCHEMA_OF_IT.content())
    lenient = SCHEMA_OF_IT.model_copy(update={"unknown_fields": "ignore"})
    assert json.loads(lenient.content())["unknown_fields"] == "ignore"
    for schema in (SCHEMA_OF_IT, lenient):
        assert Schema.model_validate_json(schema.content()) == schema


def test_openapi_allows_what_the_server_ignores(serve: Serve, odd_bundle: Path, lenient_bundle: Path) -> None:
    allowed = {}
    for bundle in (odd_bundle, lenient_bundle):
        with serve(bundle) as server:
            document = httpx.get(f"{server.url}/openapi.json").json()
        record = document["components"]["schemas"]["Record"]
        infer = document["paths"]["/v2/models/model/infer"]["post"]["requestBody"]["content"]["application/json"]
        allowed[bundle] = (
            record.get("additionalProperties", True),
            "maxItems" not in infer["schema"]["properties"]["inputs"],
        )
    assert allowed == {odd_bundle: (False, False), lenient_bundle: (True, True)}


def test_another_value_is_refused_with_its_line(workplace: Path) -> None:
    edit(Path("params.yaml"), "  settings: # arg", "  unknown_fields: drop\n  settings: # arg")
    with pytest.raises(InputError, match=r"params.yaml, line \d+: `train.unknown_fields`: input should be 'refuse' or"):
        load_params(Path("params.yaml"))
    assert workplace


def test_train_writes_the_setting_into_the_bundle(workplace: Path, slipway: Callable[..., Result]) -> None:
    assert workplace
    for verb in ("validate", "split"):
        assert slipway(verb).code == 0
    hashes = set()
    for setting in ("", "  unknown_fields: refuse\n", "  unknown_fields: ignore\n"):
        edit(Path("params.yaml"), "  settings: # arg", f"{setting}  settings: # arg")
        assert slipway("train").code == 0
        if setting:
            edit(Path("params.yaml"), setting, "")
        hashes.add(folder_hash(BUNDLE))
    assert ServedModel(BUNDLE, "model", 10).records.ignores_unknown_fields
    assert len(hashes) == 2  # the default gives the same bundle as no setting


def without(*left_out: str) -> Model:
    """Return a model of numbers only, without some of the features of the sample."""

    def fit(features: pd.DataFrame, target: "pd.Series[Any]", settings: Any, seed: int) -> Any:
        return HistGradientBoostingRegressor(**settings, random_state=seed).fit(features, target)

    model = load_model()
    numbers = [name for name in model.FEATURES if name not in ("stories", "wall", "garage", *left_out)]
    names = {name: getattr(model, name) for name in ("SCHEMA", "KEY", "TIME", "TARGET")}
    return SimpleNamespace(**names, FEATURES=tuple(numbers), fit=fit)  # type: ignore[return-value]


def built(model: Model, folder: Path) -> Image:
    """Train a model, and return the image that serves it."""
    train.run(load_params(Path("params.yaml")), model)
    folder.mkdir()
    (folder / "src").symlink_to(ROOT / "src")
    BUNDLE.rename(folder / "bundle")
    bundle = folder_hash(folder / "bundle")
    (folder / "provenance.json").write_text(json.dumps({"bundle": bundle}))
    return Image(f"sha256:{bundle}", folder, {LABELS["bundle"]: bundle})


def dated(body: Any) -> Any:
    """Declare the tensor of the date as the protocol does."""
    next(each for each in body["inputs"] if each["name"] == "sale_date")["datatype"] = "BYTES"
    return body


@contextmanager
def clients(port: int, rows: list[dict[str, Any]]) -> Generator[list[LoadClient], None, None]:
    """Send the rows in every protocol."""
    several = {
        "/predict": rows,
        "/invocations": [split(rows[:3]), {"inputs": rows}, columns(rows)],
        "/v2/models/model/infer": [dated(tensors(rows[:1])), dated(tensors(rows))],
    }
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                LoadClient(port, [json.dumps(each).encode() for each in bodies], 0.02, 25, path=path).sending()
            )
            for path, bodies in several.items()
        ]


def test_a_feature_is_added_and_removed_under_load_without_a_refused_request(workplace: Path) -> None:
    """Clients send the fields of both models. The servers change from A to B, which has two more fields, and back."""
    edit(Path("params.yaml"), "  settings: # arg", "  unknown_fields: ignore\n  settings: # arg")
    params, model = load_params(Path("params.yaml")), load_model()
    validate.run(params, model, TODAY)
    split_stage.run(params, model)
    small, large = built(without("rooms", "latitude"), workplace / "A"), built(without(), workplace / "B")
    superset = Golden.model_validate_json((large.folder / "bundle" / GOLDEN).read_bytes()).rows
    rows = [{**row, "planned": "2027"} for row in superset]
    balancer = Balancer()
    replicas = Replicas(2, balancer)
    try:
        with balancer.balancing():
            replicas.roll_out(small, None)  # type: ignore[arg-type]
            with clients(balancer.port, rows) as load:
                for image in (large, small):
                    replicas.roll_out(image, None)  # type: ignore[arg-type]
    finally:
        replicas.end()
    for each in load:
        answered = [outcome.bundle for outcome in each.outcomes]
        assert each.failures == [], each.path
        assert answered[0] == small.bundle
        assert {*answered} == {small.bundle, large.bundle}
