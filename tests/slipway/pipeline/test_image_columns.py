"""A model with an image: what is delivered, what is refused, and what the bundle contains."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from slipway import artifacts, bundle
from slipway.config import Validate, load_params
from slipway.contract import check_contract
from slipway.errors import InputError
from slipway.integrations.delivery_source import DeliverySource
from slipway.pipeline import delivery, train
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.delivery import read_chunks
from slipway.pipeline.published import example_rows
from slipway.pipeline.slices import slice_labels
from slipway.pipeline.tensors import features
from slipway.pipeline.validate import check_deliveries
from tests.slipway.conftest import RULES, TODAY
from tests.slipway.serving.arrays import as_base64, encoded

IMAGE: dict[str, Any] = {"kind": "image", "size": (2, 3), "channels": 1}
PHOTO = pa.Column(object, metadata=IMAGE)
BRIGHT = encoded(np.full((2, 3), 200, np.uint8))
TURNED = encoded(np.full((3, 2), 200, np.uint8))


class Brightness:
    """Predicts the mean brightness."""

    def predict(self, frame: pd.DataFrame) -> Any:
        return np.stack([*frame["photo"]]).mean(axis=(1, 2, 3))

    def to_onnx(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Cast", ["photo"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
            helper.make_node("ReduceMean", ["flat", "axes"], ["mean"], keepdims=1),
        ]
        given = helper.make_tensor_value_info("photo", TensorProto.UINT8, [None, 2, 3, 1])
        mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, [None, 1])
        graph = helper.make_graph(
            nodes, "g", [given], [mean], [helper.make_tensor("axes", TensorProto.INT64, [1], [1])]
        )
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def model(column: pa.Column = PHOTO, **names: Any) -> Any:
    def fit(features: pd.DataFrame, target: "pd.Series[float]", settings: Mapping[str, Any], seed: int) -> Any:  # noqa: ARG001
        return Brightness()

    columns = {"id": pa.Column(str), "photo": column, "price": pa.Column(float)}
    own = {"SCHEMA": pa.DataFrameSchema(columns), "KEY": ("id",), "TIME": None, "TARGET": "price", "fit": fit}
    return SimpleNamespace(**own | {"FEATURES": ("photo",), "EXAMPLES": ({"photo": BRIGHT},)} | names)


def train_on(rows: int, model: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (rows, 2, 3)).astype(np.uint8)
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(rows)], "photo": [encoded(each) for each in pixels]})
    frame["price"] = pixels.mean(axis=(1, 2))
    frame[ROW_ID] = np.arange(rows, dtype="uint64")
    artifacts.TRAINING.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(artifacts.TRAINING)
    frame.head(5).to_parquet(artifacts.HOLDOUT)
    train.run(load_params(artifacts.PARAMS), model)


def test_an_image_is_an_input_of_its_own_and_only_its_brightness_is_published(workplace: Path) -> None:  # noqa: ARG001
    train_on(30, model())
    loaded = bundle.load_bundle(artifacts.BUNDLE)
    (given,) = loaded.session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("photo", "tensor(uint8)", [2, 3, 1])
    frame = features(pd.read_parquet(artifacts.TRAINING), loaded.schema)
    assert (frame["photo"].iloc[0].shape, frame["photo"].iloc[0].dtype) == ((2, 3, 1), np.uint8)
    reference = json.loads((artifacts.BUNDLE / bundle.REFERENCE).read_text())["features"]["photo"]
    assert sum(reference["counts"]) == 30
    assert 0 < reference["edges"][0] < reference["edges"][-1] < 255
    golden = json.loads((artifacts.BUNDLE / bundle.GOLDEN).read_text())
    assert golden == {"rows": [{"photo": as_base64(BRIGHT)}], "predictions": [[200.0]]}


def test_a_graph_that_reads_floats_is_refused(workplace: Path) -> None:  # noqa: ARG001
    train_on(5, model())
    path = artifacts.BUNDLE / bundle.MODEL
    graph = onnx.load(path)
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(InputError, match=r"takes .*tensor\(float\).* describes .*tensor\(uint8\)"):
        bundle.load_bundle(artifacts.BUNDLE)


def test_an_estimator_that_reads_an_image_needs_to_onnx(workplace: Path) -> None:  # noqa: ARG001
    def fit(features: pd.DataFrame, target: "pd.Series[float]", *_: Any) -> Any:
        columns = ColumnTransformer([("p", FunctionTransformer(lambda each: np.stack([*each])[:, 0, :, 0]), "photo")])
        return make_pipeline(columns, LinearRegression()).fit(features, target)

    with pytest.raises(InputError, match="a step that reads a column of the kind image; only a method `to_onnx`"):
        train_on(30, model(fit=fit))


def faults(folder: Path) -> dict[int, str]:
    found = [each.faults for each in check_deliveries(folder, model(), Validate(max_invalid_share=0.9), TODAY)]
    return {row: reason for part in found for row, reason in part[["row", "reason"]].itertuples(index=False)}


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary(), "csv"], ids=str)
def test_a_row_without_an_image_of_the_schema_is_rejected_with_its_fault(tmp_path: Path, kind: Any) -> None:
    given = [BRIGHT, TURNED, BRIGHT[:40], b"GIF89a", encoded(np.zeros((2, 3, 3), np.uint8)), None, BRIGHT]
    frame = pd.DataFrame({"id": list("abcdefg"), "photo": given, "price": 1.0})
    if kind == "csv":
        frame.assign(photo=[each and as_base64(each) for each in given]).to_csv(tmp_path / "a.csv", index=False)
    else:
        table = pyarrow.table({"id": [*"abcdefg"], "photo": pyarrow.array(given, kind), "price": [1.0] * 7})
        pq.write_table(table, tmp_path / "a.parquet")
    assert faults(tmp_path) == {
        3: "photo is not 3 pixels wide and 2 high",
        4: "photo is truncated or damaged",
        5: "photo is not a PNG or JPEG image",
        6: "photo is not gray with 8 bits",
        7: "photo is missing",
    }
    (part,) = check_deliveries(tmp_path, model(), Validate(max_invalid_share=0.9), TODAY)
    assert part.table["photo"].to_pylist() == [BRIGHT, BRIGHT]
    chunk = next(iter(read_chunks(next(tmp_path.iterdir()))))
    assert chunk.as_text(chunk.rows)["photo"].to_pylist() == [each and as_base64(each) for each in given]


def test_a_column_of_numbers_is_not_an_image(tmp_path: Path) -> None:
    pq.write_table(pyarrow.table({"id": ["a"], "photo": [[1, 2]], "price": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"the column photo has the type .* declares images as bytes"):
        faults(tmp_path)


def test_an_image_is_sliced_by_its_brightness() -> None:
    rows = pd.DataFrame({"photo": [BRIGHT, encoded(np.zeros((2, 3), np.uint8))]})
    assert list(slice_labels(rows, {"photo": [100.0]}, model())["photo"]) == ["100 or more", "under 100"]


@pytest.mark.parametrize("example", [as_base64(BRIGHT), BRIGHT])
def test_an_example_is_base64_or_bytes(example: Any) -> None:
    assert example_rows([{"photo": example}], model())["photo"].tolist() == [BRIGHT]


def test_an_image_of_a_delivery_is_not_accepted_as_an_example(workplace: Path) -> None:  # noqa: ARG001
    pixels = np.random.default_rng(0).integers(0, 256, (4, 2, 3)).astype(np.uint8)
    own = encoded(pixels[3]) + b" "
    with pytest.raises(InputError, match="EXAMPLES has a value of 'photo' that the deliveries have in 2 of their rows"):
        train_on(30, model(EXAMPLES=({"photo": BRIGHT}, {"photo": own})))
    assert not artifacts.BUNDLE.exists()


@pytest.mark.parametrize("example", [TURNED, "%%", None, 3, [1, 2], b""])
def test_an_example_that_is_not_an_image_is_refused(example: Any) -> None:
    with pytest.raises(InputError, match="EXAMPLES: a value of 'photo' does not fit the schema"):
        example_rows([{"photo": example}], model())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": None}, "has the size None; declare its height and width"),
        ({"size": (28,)}, r"has the size \(28,\)"),
        ({"size": (0, 28)}, "has the size"),
        ({"size": (2.0, 3)}, "has the size"),
        ({"size": (9_999, 9_999)}, "of at most 1,398,101 pixels"),
        ({"channels": 4}, "has 4 channels; declare 1 for gray, or 3 for RGB"),
    ],
)
def test_a_wrong_declaration_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_contract(model(pa.Column(object, metadata=IMAGE | change)))


def test_an_image_cannot_be_missing() -> None:
    with pytest.raises(InputError, match="is nullable, but pixels cannot be missing"):
        check_contract(model(pa.Column(object, metadata=IMAGE, nullable=True)))


def write_folder(folder: Path, index: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
    """Write a delivery of image files. `index` maps the name of the file of a row to its id."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    rows = pd.DataFrame({"id": [*index.values()], "photo": [*index], "price": 1.0})
    rows.to_csv(folder / "index.csv", index=False)
    return folder


DARK = encoded(np.zeros((2, 3), np.uint8), "JPEG")
FILES = {"a.png": BRIGHT, "more/b.JPG": DARK, ".DS_Store": b"hidden"}


@pytest.mark.parametrize("kind", ["csv", "parquet", "several chunks", "packed"])
def test_a_folder_with_an_index_gives_the_rows_of_a_file_with_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = write_folder(tmp_path / "2025-1", {"a.png": "a", "more/b.JPG": "b"}, FILES)
    if kind == "parquet":
        pd.read_csv(folder / "index.csv").to_parquet(folder / "index.parquet")
        (folder / "index.csv").unlink()
    if kind == "packed":
        folder = packed(folder)
        assert sorted(each.name for each in folder.iterdir()) == [".DS_Store", "images-00000.zip", "index.csv"]
    if kind == "several chunks":
        monkeypatch.setattr(delivery, "BATCH_BYTES", len(BRIGHT))
        assert [chunk.rows.tolist() for chunk in read_chunks(folder)] == [[2], [3]]
    parts = [*check_deliveries(tmp_path, model(), RULES, TODAY)]
    rows = [row for part in parts for row in part.table.select(["row", "id", "photo"]).to_pylist()]
    assert rows == [{"row": 2, "id": "a", "photo": BRIGHT}, {"row": 3, "id": "b", "photo": DARK}]


def packed(folder: Path) -> Path:
    """Replace the folder by a copy as `slipway ingest` makes it."""
    copy = folder.with_name("_copy")
    with DeliverySource(str(folder.parent)).fetched(folder.name) as fetched:
        shutil.copytree(fetched, copy)
    shutil.rmtree(folder)
    return copy.rename(folder)


OUTSIDE = [
    "missing.png",
    "../2025-2/c.png",
    "./a.png",
    "/etc/hostname",
    "more",
    "linked/c.png",
    "index.csv",
    "A.png",
    "",
]


@pytest.mark.parametrize("in_archives", [False, True])
def test_a_row_that_names_no_image_of_the_folder_is_rejected(tmp_path: Path, in_archives: bool) -> None:
    outside = tmp_path / "2025-2"
    write_folder(outside, {"c.png": "c"}, {"c.png": BRIGHT})
    files = FILES | {"large.png": BRIGHT + bytes(70_000), "cut.png": BRIGHT[:40]}
    names = ["a.png", "more/b.JPG", "large.png", "cut.png", *OUTSIDE]
    folder = write_folder(tmp_path / "2025-1", {name: name or "empty" for name in names}, files)
    (folder / "linked").symlink_to(outside)
    with pytest.raises(InputError, match="has the folder linked, but parts must lie side by side"):
        faults(tmp_path)
    (folder / "linked").unlink()
    if in_archives:
        packed(folder)
    assert {row: reason for row, reason in faults(tmp_path).items() if row != len(names) + 1} == {
        4: "photo has more than 65,548 bytes",
        5: "photo is truncated or damaged",
        **dict.fromkeys(range(6, len(names) + 1), "photo names a file that is not in the folder"),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "d.png").write_bytes(BRIGHT), r"2025-1: no row of the index names d\.png; add a row"),
        (
            lambda path: [(path / name).write_bytes(BRIGHT) for name in ("d.png", "e.jpeg")],
            r"2025-1: no row of the index names d\.png and 1 more; add a row",
        ),
        (lambda path: (path / "index.csv").unlink(), "has images, but no index; add a CSV or Parquet file"),
        (lambda path: (path / "more/notes.txt").touch(), "has the folder more, but parts must lie side by side"),
        (lambda path: (path / "empty").mkdir(), "has the folder empty, but parts must lie side by side"),
    ],
)
def test_a_folder_that_does_not_fit_its_index_is_refused(
    tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    folder = write_folder(tmp_path / "2025-1", {"a.png": "a", "more/b.JPG": "b"}, FILES)
    change(folder)
    with pytest.raises(InputError, match=words):
        faults(tmp_path)


def test_an_image_of_a_line_that_cannot_be_split_counts_as_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "2025-1", {"a.png": "a"}, FILES)
    with (folder / "index.csv").open("a") as index:
        index.write("b,more/b.JPG,1.0,1.0\n")
    assert faults(tmp_path) == {3: "has 4 values instead of 3"}


def test_a_model_without_images_refuses_a_folder_with_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "2025-1", {"a.png": "a"}, FILES)
    text = model(pa.Column(str, pa.Check.str_length(max_value=9), metadata={"kind": "text"}))
    with pytest.raises(InputError, match=r"names a\.png and 1 more"):
        list(check_deliveries(tmp_path, text, RULES, TODAY))
