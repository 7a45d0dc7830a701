"""`slipway ingest`: a delivery is ingested completely or not at all, and only once."""

import errno
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from slipway.bundle import folder_hash
from slipway.config import load_params
from slipway.contract import load_model
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.delivery_source import DeliverySource
from slipway.monitoring import ingest
from slipway.pipeline import delivery
from tests.slipway.conftest import ROOT, TODAY, Result, edit
from tests.slipway.pipeline.test_image_columns import BRIGHT
from tests.slipway.pipeline.test_image_columns import model as image_model
from tests.slipway.serving.arrays import encoded

pytestmark = pytest.mark.usefixtures("warmly")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def first_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first test leaves a copy of its repository for the next tests."""
    return tmp_path_factory.mktemp("source")


@pytest.fixture
def source(workplace: Path, first_source: Path) -> Path:
    """Make a source with two new deliveries, 1997B and 1997C. data/ has 1997A under DVC."""
    if any(first_source.iterdir()):
        Path("data/1997B.csv").unlink()
        shutil.copytree(first_source, workplace, dirs_exist_ok=True)
        return Path("sample/source")
    process.run("dvc", "init", "--no-scm", "--quiet")
    waiting = workplace / "sample/source"
    waiting.mkdir(parents=True)
    later = pd.read_csv("data/1997B.csv", dtype=str)
    middle = later["sale_date"][len(later) // 2]
    later[later["sale_date"] <= middle].to_csv(waiting / "1997B.csv", index=False)
    later[later["sale_date"] > middle].to_csv(waiting / "1997C.csv", index=False)
    Path("data/1997B.csv").unlink()
    process.run("dvc", "add", "--quiet", "data")
    shutil.copytree(workplace, first_source, dirs_exist_ok=True)
    return Path("sample/source")


def state() -> tuple[str, dict[str, bytes]]:
    return Path("data.dvc").read_text(), {path.name: path.read_bytes() for path in Path("data").iterdir()}


def test_deliveries_are_ingested_oldest_first(slipway: Run, source: Path) -> None:
    for name in ("1997B", "1997C"):
        result = slipway("ingest")
        assert (result.code, f"{name} ingested" in result.out) == (0, True), result.err
        assert (Path("data") / f"{name}.csv").read_bytes() == (source / f"{name}.csv").read_bytes()
        tracked = yaml.safe_load(Path("data.dvc").read_text())["outs"][0]["nfiles"]
        assert tracked == len(list(Path("data").iterdir()))
    before = state()
    result = slipway("ingest")
    assert (result.code, "no new delivery" in result.out) == (0, True)
    assert state() == before


def test_a_delivery_that_was_copied_before_a_kill_is_tracked_by_the_next_call(slipway: Run, source: Path) -> None:
    for name in ("1997B", "1997C"):
        (Path("data") / f"{name}.csv").write_bytes((source / f"{name}.csv").read_bytes())
    result = slipway("ingest")
    assert result.code == 0
    for name in ("1997B", "1997C"):
        assert f"{name} was in data/ already, and is now recorded in data.dvc" in result.out
    assert "no new delivery" not in result.out
    assert yaml.safe_load(Path("data.dvc").read_text())["outs"][0]["nfiles"] == 3


@pytest.mark.parametrize("wanted", [(), ("1997B",)])
def test_after_a_change_of_branch_only_files_that_equal_the_source_are_recorded(
    slipway: Run, source: Path, wanted: tuple[str, ...]
) -> None:
    """data/ has deliveries of another branch. One of them differs from the source."""
    for name, content in (("1997B", (source / "1997B.csv").read_bytes()), ("1997C", b"other\n")):
        (Path("data") / f"{name}.csv").write_bytes(content)
    before = state()
    result = slipway("ingest", *wanted)
    assert (result.code, "1997C.csv differs from data/1997C.csv" in result.err) == (1, True)
    assert state() == before


@pytest.mark.usefixtures("source")
def test_files_of_a_desktop_are_not_part_of_the_data(slipway: Run) -> None:
    Path(".dvcignore").write_text((ROOT / ".dvcignore").read_text())
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (Path("data") / name).write_text("x")
    assert slipway("ingest").code == 0
    assert yaml.safe_load(Path("data.dvc").read_text())["outs"][0]["nfiles"] == 2
    assert process.run("dvc", "status", "--quiet") == ""
    assert f"{folder_hash(Path('data'))}.dir" in Path("data.dvc").read_text()


def test_a_delivery_that_is_ingested_again_changes_nothing(slipway: Run, source: Path) -> None:
    assert source
    slipway("ingest", "1997B")
    before = state()
    assert slipway("ingest", "1997B").code == 0
    assert state() == before


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), 2, "sample/source/1997B.csv is truncated"),
        (lambda path: path.write_text(""), 2, "sample/source/1997B.csv is empty"),
        (lambda path: path.write_bytes(Path("data/1997A.csv").read_bytes()), 1, "already delivered in 1997A"),
        (lambda path: path.rename(path.with_name("1996B.csv")), 1, "sorts before data/1997A.csv"),
    ],
)
def test_an_invalid_delivery_is_skipped(
    slipway: Run, source: Path, spoil: Callable[[Path], object], code: int, words: str
) -> None:
    spoil(source / "1997B.csv")
    later = (source / "1997C.csv").rename(source / "later")
    before = state()
    result = slipway("ingest")
    assert result.code == code
    assert words in result.err
    assert "/tmp" not in result.err
    assert state() == before

    later.rename(source / "1997C.csv")  # later deliveries are ingested
    result = slipway("ingest")
    assert (result.code, "1997C ingested" in result.out, words in result.out) == (0, True, True)
    assert "/tmp" not in result.out
    assert (Path("data") / "1997C.csv").is_file()


def in_capitals(source: Path) -> Path:
    return (source / "1997B.csv").rename(source / "1997B.CSV")


def compressed(source: Path) -> Path:
    content = (source / "1997B.csv").read_bytes()
    (source / "1997B.csv").unlink()
    (source / "1997B.csv.gz").write_bytes(gzip.compress(content))
    return source / "1997B.csv.gz"


def as_parquet(source: Path) -> Path:
    pd.read_csv(source / "1997B.csv", parse_dates=["sale_date"]).to_parquet(source / "1997B.parquet", index=False)
    (source / "1997B.csv").unlink()
    return source / "1997B.parquet"


def as_parts(source: Path) -> Path:
    part = (source / "1997B.csv").rename(source / "part")
    (source / "1997B.csv").mkdir()
    part.rename(source / "1997B.csv/part-00000.csv")
    (source / "1997B.csv/_SUCCESS").touch()
    return source / "1997B.csv"


@pytest.mark.parametrize("change", [in_capitals, compressed, as_parquet, as_parts])
def test_a_delivery_of_any_format_is_ingested_once_and_as_delivered(
    slipway: Run, source: Path, change: Callable[[Path], Path]
) -> None:
    delivered = change(source)
    result = slipway("ingest")
    assert (result.code, "1997B ingested" in result.out) == (0, True), result.err
    here = Path("data") / delivered.name
    for path in [delivered, *delivered.glob("*")]:
        same = here / path.relative_to(delivered)
        assert same.is_dir() if path.is_dir() else same.read_bytes() == path.read_bytes()
    assert "1997C ingested" in slipway("ingest").out  # and 1997B was compared with the source
    if delivered.is_dir():
        (delivered / "part-00001.csv").write_bytes((delivered / "part-00000.csv").read_bytes())
    else:
        delivered.write_bytes(delivered.read_bytes() + b"more")
    assert f"{delivered.name} differs from data/{delivered.name}" in slipway("ingest").err
    assert slipway("validate").code == 0


def test_a_folder_of_images_is_ingested_as_an_index_and_an_archive(
    slipway: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SimpleNamespace(**vars(image_model()), __file__=None)
    monkeypatch.setattr("slipway.cli.monitoring.load_model", lambda: model)
    folder = source / "2025-1"
    (folder / "photos").mkdir(parents=True)
    for path in [*source.glob("*.csv"), *Path("data").iterdir()]:
        path.unlink()
    process.run("dvc", "add", "--quiet", "data")
    for name in ("a", "b"):
        (folder / f"photos/{name}.png").write_bytes(BRIGHT)
    (folder / "index.csv").write_text("id,photo,price\na,photos/a.png,1.0\nb,photos/b.png,2.0\nc,photos/a.png,3,4\n")
    edit(Path("params.yaml"), "max_invalid_share: 0.10", "max_invalid_share: 0.50")
    result = slipway("ingest")
    assert "2025-1 ingested: 2 rows accepted, 1 quarantined" in result.out, result.err
    assert "1 row: has 4 values instead of 3" in result.out
    assert {path.name for path in Path("data/2025-1").iterdir()} == {"index.csv", "images-00000.zip"}
    assert Path("data/2025-1/index.csv").read_bytes() == (folder / "index.csv").read_bytes()
    assert "no new delivery" in slipway("ingest").out
    (folder / "photos/b.png").write_bytes(encoded(np.zeros((2, 3), np.uint8)))
    assert "2025-1 differs from data/2025-1, which is already ingested" in slipway("ingest").err


def test_a_folder_that_was_copied_before_a_kill_is_tracked_by_the_next_call(slipway: Run, source: Path) -> None:
    shutil.copytree(as_parts(source), "data/1997B.csv")
    assert "1997C ingested" in slipway("ingest").out
    assert yaml.safe_load(Path("data.dvc").read_text())["outs"][0]["nfiles"] == 4


def test_a_file_that_must_be_renamed_is_named_and_blocks_no_other_delivery(slipway: Run, source: Path) -> None:
    (source / "1997A.xlsx").touch()
    (source / ".hidden").touch()
    (source / "1997C.csv.gz").touch()
    found = slipway("ingest")
    assert (found.code, "1997B ingested" in found.out, ".hidden" in found.out) == (0, True, False)
    assert "1997A.xlsx is not taken, because its name" in found.out
    assert "1997C.csv and sample/source/1997C.csv.gz are both named 1997C; rename" in found.out
    found = slipway("ingest")
    assert (found.code, "1997A.xlsx is not taken, because its name" in found.err) == (2, True)
    (source / "1997A.xlsx").unlink()
    (source / "1997C.csv.gz").unlink()
    assert "1997C ingested" in slipway("ingest").out


def test_a_delivery_with_the_name_of_an_ingested_one_is_skipped(slipway: Run, source: Path) -> None:
    assert "1997B ingested" in slipway("ingest").out
    as_parquet(source)
    result = slipway("ingest")
    assert "1997B.parquet has the name of data/1997B.csv, which is already ingested" in result.out
    assert "1997C ingested" in result.out


def test_a_changed_delivery_is_skipped_and_later_ones_are_ingested(slipway: Run, source: Path) -> None:
    assert slipway("ingest").code == 0
    taken = Path("data/1997B.csv").read_bytes()
    (source / "1997B.csv").write_text("other\n")
    result = slipway("ingest")
    assert (result.code, "1997C ingested" in result.out, "differs from data/1997B.csv" in result.out) == (0, True, True)
    assert Path("data/1997B.csv").read_bytes() == taken


@pytest.mark.parametrize(
    "lose",
    [
        lambda: shutil.rmtree("data"),
        lambda: Path("data/1997A.csv").unlink(),
        lambda: Path("data/1997A.csv").write_text("edited\n"),
        lambda: Path("data/1996Z.csv").write_text("unknown\n"),
    ],
)
@pytest.mark.usefixtures("source")
def test_data_that_differs_from_data_dvc_is_not_recorded(slipway: Run, lose: Callable[[], object]) -> None:
    """As in a clone before `dvc pull`. There, `dvc add` would forget the missing deliveries."""
    lose()
    before = Path("data.dvc").read_text()
    result = slipway("ingest")
    assert (result.code, "run `dvc pull data.dvc`" in result.err) == (2, True)
    assert Path("data.dvc").read_text() == before


def test_the_quarantine_of_a_skipped_delivery_has_its_rows(slipway: Run, source: Path) -> None:
    rows = pd.read_csv(source / "1997B.csv", dtype=str)
    rows.assign(price="-1").to_csv(source / "1997B.csv", index=False)
    assert slipway("ingest", "1997B").code == 1
    assert set(pd.read_csv("build/quarantine.csv")["delivery"]) == {"1997B"}


def test_a_delivery_with_a_pull_request_is_ingested_with_the_next_one(source: Path) -> None:
    """The pull request of an earlier delivery may stay open for long."""
    assert source
    params = load_params(Path("params.yaml"))
    result = ingest.ingest(params, load_model(), TODAY, DeliverySource(str(source)), known={"1997B"})
    assert [each.name for each in result.ingested] == ["1997B", "1997C"]
    assert result.skipped == ()


def test_a_delivery_is_read_in_parts(slipway: Run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invalid rows have the same numbers as in one read: a duplicate, an earlier row, and an invalid price."""
    lines = (source / "1997B.csv").read_text().splitlines()
    earlier = Path("data/1997A.csv").read_text().splitlines()[1]
    wrong = lines[3].replace(lines[3].split(",")[0], "price", 1)
    text = "\n".join([*lines, lines[2], earlier, wrong]) + "\n"
    found = []
    for size in (100_000_000, 3_000):
        (source / "1997B.csv").write_text(text)
        monkeypatch.setattr(delivery, "PART_BYTES", size)
        result = slipway("ingest", "1997B")
        assert result.code == 0, result.err
        found.append((result.out, pd.read_csv("build/quarantine.csv", dtype=str).to_csv()))
        Path("data/1997B.csv").unlink()
        process.run("dvc", "add", "--quiet", "data")
    assert found[0] == found[1]
    assert "3 quarantined" in found[0][0]


def test_a_source_that_cannot_be_reached_fails_with_one_sentence(slipway: Run, source: Path) -> None:
    assert source
    for address, words in (
        ("http://127.0.0.1:1/deliveries", "The source http://127.0.0.1:1/deliveries cannot be used"),
        ("nothing://deliveries", "The source nothing://deliveries cannot be used"),
    ):
        edit(Path("params.yaml"), "source: ", f"source: {address} # ")
        before = state()
        result = slipway("ingest")
        assert (result.code, words in result.err) == (2, True), result.err
        assert state() == before
        edit(Path("params.yaml"), f"source: {address} # ", "source: ")


def test_a_file_that_changes_during_the_copy_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = DeliverySource(str(source))
    copy = here._files.get_file

    def copied_while_it_grows(path: str, to: str) -> None:
        copy(path, to)
        with (source / "1997B.csv").open("a") as file:
            file.write("more\n")

    monkeypatch.setattr(here._files, "get_file", copied_while_it_grows)
    with pytest.raises(CheckFailed, match="is still being written"), here.fetched("1997B.csv"):
        pass


def test_a_full_disk_is_not_reported_as_an_error_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "2025-1.csv").touch()
    here = DeliverySource(str(tmp_path))

    def copied_to_a_full_disk(path: str, to: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path, None, to)

    monkeypatch.setattr(here._files, "get_file", copied_to_a_full_disk)
    with pytest.raises(OSError, match="No space left on device"), here.fetched("2025-1.csv"):
        pass


def test_a_link_in_the_folder_of_a_delivery_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source/2025-1").mkdir(parents=True)
    (tmp_path / "secret").write_text("key")
    (tmp_path / "source/2025-1/a.png").symlink_to(tmp_path / "secret")
    fetched = DeliverySource(str(tmp_path / "source")).fetched("2025-1")
    with pytest.raises(InputError, match=r"2025-1 has the symbolic link .*/a\.png; deliver the file itself"), fetched:
        pass


def test_a_missing_source_or_delivery_is_named_in_the_message(slipway: Run, source: Path) -> None:
    assert "has no delivery 1997X" in slipway("ingest", "1997X").err
    for path in source.iterdir():
        path.unlink()
    source.rmdir()
    result = slipway("ingest")
    assert (result.code, "`ingest.source` is sample/source, but that is not a folder" in result.err) == (2, True)


@pytest.mark.usefixtures("source")
def test_data_as_a_symbolic_link_is_refused_before_anything_is_written(
    slipway: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    disk = tmp_path_factory.mktemp("disk") / "data"
    shutil.move("data", disk)
    Path("data").symlink_to(disk)
    before = state()
    result = slipway("ingest")
    assert result.code == 2
    assert "data/ is a symbolic link, which DVC does not track" in result.err
    assert "dvc cache dir" in result.err
    assert state() == before


def test_a_correction_may_sort_before_the_newest_delivery(slipway: Run, source: Path) -> None:
    for _ in range(2):
        slipway("ingest")
    rows = pd.read_csv(source / "1997B.csv", dtype=str).head(20).assign(price="77777")
    rows.to_csv(source / "1997B-corrected.csv", index=False)
    refused = slipway("ingest")
    assert (refused.code, "or set `validate.repeated_keys: replace` if it corrects" in refused.err) == (1, True)
    edit(Path("params.yaml"), "validate:\n", "validate:\n  repeated_keys: replace\n")
    result = slipway("ingest")
    assert (result.code, "1997B-corrected ingested: 20 rows accepted" in result.out) == (0, True), result.err
    assert "20 rows replace earlier ones\n" in result.out  # only `validate` counts the changed ones
    assert "20 rows replace earlier ones, 20 of them with other values" in slipway("validate").out


@pytest.mark.parametrize("setting", ["accept", "refuse"])
def test_a_list_of_keys_is_ingested_only_with_the_setting(slipway: Run, source: Path, setting: str) -> None:
    for _ in range(2):
        slipway("ingest")
    keys = pd.read_csv(source / "1997B.csv", dtype=str).head(5)[list(load_model().KEY)]
    keys.to_csv(source / "1997D.deleted.csv", index=False)
    edit(Path("params.yaml"), "validate:\n", f"validate:\n  deletions: {setting}\n")
    before = state()
    result = slipway("ingest")
    if setting == "accept":
        assert (result.code, "1997D.deleted ingested: 5 keys accepted, 0 quarantined" in result.out) == (0, True)
        assert "5 keys delete 5 rows, 0 keys match no row" in result.out
        assert {*state()[1]} - {*before[1]} == {"1997D.deleted.csv"}
    else:
        assert (result.code, "1997D.deleted.csv has only the columns of KEY" in result.err) == (2, True), result.err
        assert state() == before


def test_only_deliveries_with_earlier_names_affect_a_list_of_keys(slipway: Run, source: Path) -> None:
    """Otherwise `ingest` would count other rows than `validate`."""
    for _ in range(2):
        slipway("ingest")
    edit(Path("params.yaml"), "validate:\n", "validate:\n  deletions: accept\n  repeated_keys: replace\n")
    rows = pd.concat([pd.read_csv(source / f"{name}.csv", dtype=str).head(5) for name in ("1997B", "1997C")])
    rows[list(load_model().KEY)].to_csv(source / "1997B.deleted.csv", index=False)
    for verb in ("ingest", "validate"):
        assert "10 keys delete 5 rows, 5 keys match no row" in slipway(verb).out
