"""Batch scoring continues after an interruption, and a bad part does not stop it."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest

from slipway import config
from slipway.bundle import MODEL, load_bundle, read_reference
from slipway.errors import CheckFailed, InputError
from slipway.integrations.batch_storage import BatchInput, BatchOutput
from slipway.monitoring.drift import compare
from slipway.monitoring.drift_sources import of_rows
from slipway.pipeline import delivery
from slipway.pipeline.tensors import features
from slipway.scoring import read_part, score, score_rows
from slipway.scoring.__main__ import main
from tests.slipway import outside
from tests.slipway.conftest import ROOT, Repository, Result
from tests.slipway.scoring.conftest import Score, answers, files, quarantined
from tests.slipway.serving import odd


@pytest.fixture
def parts(tmp_path: Path, sales: pd.DataFrame) -> Path:
    """Three parts: CSV, Parquet in a subfolder, and CSV with an invalid row."""
    folder = tmp_path / "in"
    (folder / "week=1").mkdir(parents=True)
    sales[:300].to_csv(folder / "a.csv", index=False)
    typed = {name: float for name in sales if name not in ("sale_date", "stories", "wall", "garage")}
    sales[300:600].astype(typed).to_parquet(folder / "week=1/b.parquet", index=False)
    sales[600:].assign(rooms=sales["rooms"].where(sales.index != 700, "many")).to_csv(folder / "c.csv", index=False)
    (folder / "_SUCCESS").touch()
    (folder / ".c.csv.partial").write_text("half of it")
    return folder


@pytest.fixture
def champion(served: Repository) -> Path:
    return served.path / "champion"


@pytest.mark.usefixtures("parts")
def test_answers_have_the_row_the_key_and_the_bundle(
    champion: Path, run: Score, tmp_path: Path, sales: pd.DataFrame
) -> None:
    summary = run(champion)
    bundle = load_bundle(champion)
    assert summary.bundle == bundle.hash
    assert (summary.parts, summary.rows, summary.answered, summary.quarantined) == (3, 1000, 999, 1)
    found = answers(tmp_path / "out", "a.csv")
    assert list(found) == ["row", *bundle.schema.key, "prediction", "bundle"]
    assert found["row"].tolist() == list(range(2, 302))
    assert found["latitude"].tolist() == sales["latitude"][:300].tolist()
    assert set(found["bundle"]) == {bundle.hash}
    nested = answers(tmp_path / "out", "week=1/b.parquet")
    assert nested["latitude"].tolist() == sales["latitude"][300:600].astype(float).tolist()
    assert nested["row"].tolist() == list(range(2, 302))
    invalid = pd.read_csv(tmp_path / "out/quarantine/c.csv.csv")
    assert invalid[["row", "reason", "latitude"]].to_numpy().tolist() == [
        [102, "column 'rooms': Input should be a valid number", float(sales["latitude"][700])]
    ]
    assert not (tmp_path / "out/quarantine/a.csv.csv").exists()


def test_a_classification_has_the_class_and_all_probabilities(run: Score, tmp_path: Path) -> None:
    odd.write_bundle(tmp_path)
    bundle = tmp_path / "classes"
    bundle.mkdir()
    for name in (odd.MODEL, odd.SCHEMA, odd.REFERENCE, odd.GOLDEN):
        shutil.copy(tmp_path / name, bundle)
    schema = json.loads((bundle / odd.SCHEMA).read_text()) | {"kind": "classification", "classes": ["only"]}
    (bundle / odd.SCHEMA).write_text(json.dumps(schema))
    reference = json.loads((bundle / odd.REFERENCE).read_text())
    reference["prediction"] = {"only": reference["prediction"]["price"]}
    (bundle / odd.REFERENCE).write_text(json.dumps(reference))
    (tmp_path / "in").mkdir()
    pd.DataFrame([odd.ROW]).to_csv(tmp_path / "in/a.csv", index=False)
    run(bundle)
    found = answers(tmp_path / "out", "a.csv").iloc[0]
    assert found["prediction"] == "only"
    assert found["probability_only"] == odd.expected(odd.ROW)


@pytest.mark.usefixtures("parts")
def test_small_blocks_give_the_same_rows(
    champion: Path, run: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(champion)
    monkeypatch.setattr(delivery, "PART_BYTES", 1_000)
    monkeypatch.setattr(delivery, "PART_ROWS", 70)
    monkeypatch.setattr(score, "CHUNK_ROWS", 7)
    run(champion, output=tmp_path / "small")
    for part in ("a.csv", "week=1/b.parquet", "c.csv"):
        pd.testing.assert_frame_equal(answers(tmp_path / "small", part), answers(tmp_path / "out", part))
        assert quarantined(tmp_path / "small", part) == quarantined(tmp_path / "out", part)


def test_lines_with_too_few_values_are_quarantined_with_their_row(
    champion: Path, run: Score, tmp_path: Path, sales: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = sales.to_csv(index=False).splitlines()
    lines[5] = "1,2"
    lines[900] += ",more"
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(delivery, "PART_BYTES", 10_000)
    summary = run(champion, source=tmp_path / "a.csv")
    assert (summary.rows, summary.answered) == (1000, 998)
    assert quarantined(tmp_path / "out", "a.csv") == {
        6: "has 2 values instead of 17",
        901: "has 18 values instead of 17",
    }


BAD = {
    "cut.csv": " is truncated: its last row has no line break; deliver it again.",
    "quote.csv": ", row 4: a quote is not closed",
    "latin.csv": ", row 19: not UTF-8; deliver the file in UTF-8.",
    "none.csv": " is empty; deliver it again.",
    "text.parquet": " is not Parquet; deliver it again",
    "damaged.parquet": " is truncated or damaged",
    "lacks.csv": " lacks the column 'rooms' and 'wall'; deliver it again with all columns.",
    "twice.csv": " has twice the column 'rooms'; deliver each column once.",
    "other.csv": " has the column 'roms', which the model does not read; leave it out, or copy it to the answers with "
    "--keep.",
    "rows.json": " is not scored, because its name ends neither in .csv nor in .parquet",
}
"""A fault of a part, by the name of the part."""


def write_bad_parts(folder: Path, sales: pd.DataFrame) -> None:
    text = sales.to_csv(index=False)
    (folder / "cut.csv").write_text(text.rstrip("\n"))
    lines = text.splitlines(keepends=True)
    lines[3] = '"' + lines[3]
    (folder / "quote.csv").write_text("".join(lines))
    (folder / "latin.csv").write_bytes(text.replace("brick", "brück").encode("latin-1"))
    (folder / "none.csv").touch()
    (folder / "text.parquet").write_text(text)
    sales.to_parquet(folder / "damaged.parquet", compression=None)
    content = bytearray((folder / "damaged.parquet").read_bytes())
    content[4:400] = b"\xff" * 396
    (folder / "damaged.parquet").write_bytes(content)
    sales.drop(columns=["rooms", "wall"]).to_csv(folder / "lacks.csv", index=False)
    (folder / "twice.csv").write_text(text.replace("bedrooms", "rooms", 1))
    sales.assign(roms=1).to_csv(folder / "other.csv", index=False)
    sales.to_json(folder / "rows.json")


def test_a_bad_part_is_quarantined_and_the_others_are_scored(
    parts: Path, champion: Path, run: Score, tmp_path: Path, sales: pd.DataFrame
) -> None:
    write_bad_parts(parts, sales)
    summary = run(champion)
    assert summary.faults.keys() == BAD.keys()
    assert {name: fault.startswith(name + BAD[name]) for name, fault in summary.faults.items()} == dict.fromkeys(
        BAD, True
    ), summary.faults
    assert summary.answered == 999
    for name, fault in summary.faults.items():
        assert not (tmp_path / f"out/answers/{name}.parquet").exists()
        assert pd.read_csv(tmp_path / f"out/quarantine/{name}.csv")["reason"].tolist() == [fault]
    with pytest.raises(CheckFailed, match=r"^cut.csv is truncated.* again \(10 of 13 files cannot be scored\).$"):
        score.check(summary)
    before = files(tmp_path / "out")
    assert run(champion) == summary
    assert files(tmp_path / "out") == before


def test_a_corrected_part_replaces_its_fault(champion: Path, run: Score, tmp_path: Path, sales: pd.DataFrame) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("rooms\n1\n")
    assert run(champion).faults
    sales.to_csv(tmp_path / "in/a.csv", index=False)
    assert not run(champion).faults
    assert len(answers(tmp_path / "out", "a.csv")) == len(sales)
    assert not (tmp_path / "out/quarantine/a.csv.csv").exists()
    (tmp_path / "in/a.csv").write_text("rooms\n1\n")
    assert run(champion).faults
    assert not (tmp_path / "out/answers/a.csv.parquet").exists()


def test_a_part_without_rows_has_answers_without_rows(
    champion: Path, run: Score, tmp_path: Path, sales: pd.DataFrame
) -> None:
    (tmp_path / "in").mkdir()
    sales[:0].to_csv(tmp_path / "in/a.csv", index=False)
    sales[:0].to_parquet(tmp_path / "in/b.parquet", index=False)
    assert run(champion).rows == 0
    schemas = [pq.read_schema(tmp_path / f"out/answers/{part}.parquet").names for part in ("a.csv", "b.parquet")]
    assert schemas[0] == schemas[1]


def test_parts_that_are_done_are_not_scored_again(
    parts: Path, champion: Path, run: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(champion)
    before = files(tmp_path / "out")
    scored: list[str] = []
    fetched = BatchInput.fetched
    monkeypatch.setattr(BatchInput, "fetched", lambda self, part: (scored.append(part.name), fetched(self, part))[1])
    assert run(champion) == first
    assert scored == []
    (tmp_path / "out/answers/c.csv.parquet").unlink()
    (tmp_path / "out/manifests/a.csv.json").write_text('{"half')
    with (parts / "week=1/b.parquet").open("ab") as file:
        file.write(b"more")
    run(champion)
    assert scored == ["a.csv", "c.csv", "week=1/b.parquet"]
    shutil.copytree(champion, tmp_path / "other")
    (tmp_path / "other/note.txt").write_text("another hash")
    assert "week=1/b.parquet" in run(tmp_path / "other").faults
    assert len(scored) == 6
    run(tmp_path / "other", "price")
    assert len(scored) == 9
    assert files(tmp_path / "out").keys() <= before.keys() | {"quarantine/week=1/b.parquet.csv"}


@pytest.mark.usefixtures("parts")
def test_a_run_with_another_model_does_not_reuse_the_answers_of_an_interrupted_run(
    champion: Path, run: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of the second model stops between the answers and the manifest. Then the first model runs again."""
    run(champion)
    before = files(tmp_path / "out")
    shutil.copytree(champion, tmp_path / "other")
    (tmp_path / "other/note.txt").write_text("another hash")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(BatchOutput, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "other")
    assert files(tmp_path / "out") != before
    run(champion)
    assert files(tmp_path / "out") == before


KILL = """\
import os, random, shutil, signal, sys
from pathlib import Path
from slipway.scoring import score
import onnxruntime, pandas, pyarrow.csv, pyarrow.parquet  # otherwise, each child would import them

bundle, source, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
loaded = score.ServedModel(Path(bundle), "model", score.CHUNK_ROWS)
score.ServedModel = lambda *_: loaded  # each run would load it again, which takes most of its time

def run(output, most=None):
    # Run in a child process. Kill it by SIGKILL at the function call with the number `most`.
    pid = os.fork()
    if not pid:
        count = 0
        def call(frame, event, argument):
            nonlocal count
            count += 1
            if count == most:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(call)
        score.run(Path(bundle), source, str(output), (), lambda *_: None)
        sys.setprofile(None)
        Path(folder / "calls").write_text(str(count))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert run(folder / "whole") == 0
calls = int((folder / "calls").read_text())
random.seed(21)
for number, most in enumerate(random.sample(range(calls // 10, calls), 20)):
    assert run(folder / f"killed{number}", most) == -signal.SIGKILL
    assert run(folder / f"killed{number}") == 0
"""


def test_the_output_is_the_same_after_kills_at_20_random_moments(
    parts: Path, champion: Path, tmp_path: Path, sales: pd.DataFrame
) -> None:
    for name in ("a.csv", "c.csv"):
        sales[:40].replace({"rooms": {sales["rooms"][7]: "many"}}).to_csv(parts / name, index=False)
    command = [sys.executable, "-c", KILL, str(champion), str(parts), str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    expected = files(tmp_path / "whole")
    assert len(expected) == 3 + 2 + 3 + 1
    for number in range(20):
        assert files(tmp_path / f"killed{number}") == expected


@pytest.mark.usefixtures("parts")
def test_the_summary_has_the_psi_of_the_verb_drift(
    champion: Path, run: Score, tmp_path: Path, sales: pd.DataFrame
) -> None:
    summary = run(champion)
    assert json.loads((tmp_path / "out/summary.json").read_text()) == json.loads(summary.model_dump_json())
    bundle, reference = load_bundle(champion), read_reference(champion)
    frame = sales.drop(index=700).astype({name: float for name in bundle.schema.numbers if name != "sale_date"})
    frame["sale_date"] = pd.to_datetime(frame["sale_date"])
    counts = of_rows(bundle, reference, features(frame, bundle.schema))
    expected = compare(bundle.hash, bundle.schema, reference, counts, config.load_params(ROOT / "params.yaml").drift)
    assert {each.name: each.psi for each in summary.drift} == {
        each.name: pytest.approx(each.psi, abs=1e-6) for each in expected.moved
    }
    assert [each.kind for each in summary.drift] == [each.what for each in expected.moved]
    assert summary.drift[0].psi > 0


def test_other_columns_are_copied_if_they_are_named(
    champion: Path, run: Score, tmp_path: Path, sales: pd.DataFrame
) -> None:
    (tmp_path / "in").mkdir()
    sales.assign(parcel="0042").to_csv(tmp_path / "in/a.csv", index=False)
    assert "--keep" in run(champion).faults["a.csv"]
    assert not run(champion, "parcel").faults
    assert set(answers(tmp_path / "out", "a.csv")["parcel"]) == {"0042"}
    assert run(champion, "parcel", "plot").faults["a.csv"].startswith("a.csv lacks the column 'plot'")


def test_unknown_columns_are_ignored_if_requests_may_have_unknown_fields(
    odd_bundle: Path, run: Score, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pd.DataFrame([odd.ROW | {"parcel": "0042"}]).to_csv(tmp_path / "in/a.csv", index=False)
    assert "has the column 'parcel'" in run(odd_bundle).faults["a.csv"]
    shutil.copytree(odd_bundle, tmp_path / "lenient")
    schema = json.loads((odd_bundle / odd.SCHEMA).read_text()) | {"unknown_fields": "ignore"}
    (tmp_path / "lenient" / odd.SCHEMA).write_text(json.dumps(schema))
    assert run(tmp_path / "lenient").answered == 1
    assert "parcel" not in answers(tmp_path / "out", "a.csv")


@pytest.mark.parametrize("name", ["row", "reason", "prediction", "bundle"])
def test_a_copied_column_cannot_have_the_name_of_another(name: str, champion: Path, run: Score) -> None:
    with pytest.raises(InputError, match=f"'{name}' of their own; rename"):
        run(champion, name)


@pytest.mark.parametrize("output", ["in", "in/out", "in/week=1"])
def test_an_output_in_the_input_is_refused(
    output: str, parts: Path, champion: Path, run: Score, tmp_path: Path
) -> None:
    before = files(parts)
    with pytest.raises(InputError, match="would be scored too; name another output"):
        run(champion, output=tmp_path / output)
    assert files(parts) == before


def test_an_output_that_is_a_link_to_the_input_is_refused(
    champion: Path, parts: Path, run: Score, tmp_path: Path
) -> None:
    before = files(parts)
    (tmp_path / "link").symlink_to(parts)
    with pytest.raises(InputError, match="would be scored too; name another output"):
        run(champion, output=tmp_path / "link/out")
    with pytest.raises(InputError, match="would be scored too; name another output"):
        run(champion, source=tmp_path / "link", output=parts)
    assert files(parts) == before


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A part with two rows for the bundle of the module `odd`."""
    (tmp_path / "in").mkdir()
    pd.DataFrame([odd.ROW, odd.ROW]).to_csv(tmp_path / "in/a.csv", index=False)
    return tmp_path / "in"


def test_a_part_with_other_content_of_the_same_size_and_time_is_scored_again(
    rows: Path, odd_bundle: Path, run: Score, tmp_path: Path
) -> None:
    """`rsync --times` and `cp --preserve` set the time of modification."""
    run(odd_bundle)
    before = answers(tmp_path / "out", "a.csv")["prediction"].tolist()
    path, status = rows / "a.csv", (rows / "a.csv").stat()
    path.write_text(path.read_text().replace("2001-01-01", "2001-01-02"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    run(odd_bundle)
    assert answers(tmp_path / "out", "a.csv")["prediction"].tolist() == [each + 100 for each in before]


def test_a_link_to_a_file_is_scored_again_after_the_file_has_changed(
    rows: Path, odd_bundle: Path, run: Score, tmp_path: Path
) -> None:
    (rows / "a.csv").rename(tmp_path / "elsewhere.csv")
    (rows / "a.csv").symlink_to(tmp_path / "elsewhere.csv")
    run(odd_bundle)
    before = answers(tmp_path / "out", "a.csv")["prediction"].tolist()
    path = tmp_path / "elsewhere.csv"
    path.write_text(path.read_text().replace("2001-01-01", "2001-01-02"))
    run(odd_bundle)
    assert answers(tmp_path / "out", "a.csv")["prediction"].tolist() == [each + 100 for each in before]


def test_links_and_pipes_without_a_file_are_quarantined(
    rows: Path, odd_bundle: Path, run: Score, tmp_path: Path
) -> None:
    (rows / "folder.csv").symlink_to(tmp_path)
    (rows / "nothing.csv").symlink_to(tmp_path / "nothing")
    (rows / "round.csv").symlink_to(rows / "round.csv")
    os.mkfifo(rows / "pipe.csv")  # reading it would wait forever
    summary = run(odd_bundle)
    assert (summary.answered, sorted(summary.faults)) == (2, ["folder.csv", "nothing.csv", "pipe.csv", "round.csv"])
    assert "pipe.csv is neither a file nor a link to a file; deliver the file itself" in summary.faults["pipe.csv"]
    (tmp_path / "nothing").write_bytes((rows / "a.csv").read_bytes())
    assert run(odd_bundle).answered == 4


@pytest.mark.parametrize("name", ["answers", "quarantine", "manifests", "answers/week=1"])
def test_an_input_in_the_results_is_refused(
    name: str, rows: Path, odd_bundle: Path, run: Score, tmp_path: Path
) -> None:
    shutil.copytree(rows, tmp_path / "out" / name)
    before = files(tmp_path / "out")
    with pytest.raises(InputError, match="would be scored too; name another output"):
        run(odd_bundle, source=tmp_path / "out" / name)
    assert files(tmp_path / "out") == before


def test_a_second_run_at_the_same_time_is_refused(rows: Path, odd_bundle: Path, run: Score, tmp_path: Path) -> None:
    with BatchOutput(str(tmp_path / "out")).locked():
        with pytest.raises(InputError, match=r"Another run writes to .*/out; wait for its end, or name another output"):
            run(odd_bundle, source=rows)
        assert files(tmp_path / "out") == {}
    assert run(odd_bundle).answered == 2


def test_a_full_disk_is_one_sentence_and_the_next_run_continues(
    rows: Path, odd_bundle: Path, run: Score, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError, match=r"^File too large \(.*/out\); free some space"):
            run(odd_bundle, source=rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not {"answers", "manifests", "summary.json"} & {name.split("/")[0] for name in files(tmp_path / "out")}
    assert run(odd_bundle).answered == 2
    assert sorted(files(tmp_path / "out")) == ["answers/a.csv.parquet", "manifests/a.csv.json", "summary.json"]


def test_an_error_of_the_disk_names_the_file_that_cannot_be_used(tmp_path: Path) -> None:
    output = BatchOutput(str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"^Permission denied \(in/a\.csv\); give your user access"), output.writing():
        raise PermissionError(errno.EACCES, "", "in/a.csv")
    bucket = BatchOutput("memory://out")
    temporary = bucket.staged("").parent
    with pytest.raises(InputError, match=rf"^No space left on device \({temporary}"), bucket.writing():
        raise OSError(errno.ENOSPC, "")


def test_a_file_name_that_is_not_utf_8_is_refused(rows: Path, odd_bundle: Path, run: Score) -> None:
    (rows / "a.csv").rename(rows / os.fsdecode(b"\xff.csv"))
    with pytest.raises(InputError, match=r"has a file whose name is not UTF-8, '\\udcff.csv'; rename it"):
        run(odd_bundle)


def test_a_file_name_that_is_too_long_for_the_results_is_refused(
    rows: Path, odd_bundle: Path, run: Score, tmp_path: Path
) -> None:
    (rows / "a.csv").rename(rows / ("n" * 244 + ".csv"))
    with pytest.raises(InputError, match=r"whose name is longer than 247 bytes, 'nnn.*; rename it"):
        run(odd_bundle)
    (rows / ("n" * 244 + ".csv")).rename(rows / ("n" * 243 + ".csv"))
    run(odd_bundle)
    assert (tmp_path / ("out/answers/" + "n" * 243 + ".csv.parquet")).exists()


@pytest.mark.parametrize("address", ["", "/", " "])
def test_an_empty_address_is_not_the_working_directory(address: str, rows: Path, odd_bundle: Path) -> None:
    for given in ({"source": address}, {"source": rows, "output": address}):
        with pytest.raises(InputError, match="The address of a folder or a bucket is empty; name one"):
            score.run(odd_bundle, str(given["source"]), str(given.get("output", "out")), (), lambda *_: None)


def test_times_that_python_cannot_represent_are_quarantined(odd_bundle: Path, run: Score, tmp_path: Path) -> None:
    far = arrow.array([2**62, None], arrow.timestamp("us"))
    for name in (odd.AREA, "rooms", "kind", odd.SOLD):
        (tmp_path / "in").mkdir(exist_ok=True)
        table = arrow.table({odd.AREA: [1.0, 2.0], "note": ["x", "x"]} | {name: far})
        pq.write_table(table, tmp_path / "in/a.parquet")
        run(odd_bundle)
        assert 2 in quarantined(tmp_path / "out", "a.parquet")


def test_an_input_without_files_is_refused(champion: Path, run: Score, tmp_path: Path) -> None:
    for source in (tmp_path / "none", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="does not exist or has no files"):
            run(champion, source=source)
    with pytest.raises(InputError, match="cannot be used"):
        run(champion, source="unheard-of://houses")


def test_a_part_that_changes_while_it_is_read_is_not_answered(
    parts: Path, champion: Path, run: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*arguments: Any) -> object:
        (parts / "a.csv").write_text("shorter\n")
        return score_rows.score_rows(*arguments)

    monkeypatch.setattr(score, "score_rows", write)
    with pytest.raises(CheckFailed, match=r"a.csv is still being written; run this again when it is complete"):
        run(champion)
    assert not (tmp_path / "out/manifests/a.csv.json").exists()


def test_input_and_output_can_be_in_a_bucket(
    parts: Path, champion: Path, run: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(champion)
    with outside.s3(tmp_path) as store:
        for name, value in store.variables().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        store.files().put(str(parts), f"{outside.BUCKET}/in", recursive=True)
        address = f"s3://{outside.BUCKET}"
        for _ in range(2):
            assert run(champion, source=f"{address}/in", output=f"{address}/out") == expected
        store.files().get(f"{outside.BUCKET}/out/", str(tmp_path / "got"), recursive=True)
    here, there = files(tmp_path / "out"), files(tmp_path / "got")
    assert there.keys() == here.keys()
    assert {name for name in here if here[name] != there[name]} == {  # the stamp of a part depends on its storage
        name for name in here if name.startswith("manifests/")
    }


def test_the_verb_scores_with_the_champion(
    parts: Path, served: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slipway: Callable[..., Result]
) -> None:
    monkeypatch.chdir(served.path)
    done = slipway("score", str(parts), str(tmp_path / "out"))
    assert done.code == 0
    assert "c.csv: 399 of 400 rows scored, 1 quarantined" in done.out
    assert "prediction of price" in done.out
    assert "c.csv: already done: 399" in slipway("score", str(parts), str(tmp_path / "out")).out
    (parts / "d.csv").touch()
    done = slipway("score", str(parts), str(tmp_path / "out"))
    assert (done.code, done.err) == (1, "slipway: d.csv is empty; deliver it again (1 of 4 files cannot be scored).\n")


def test_paths_are_relative_to_the_directory_of_the_user(
    parts: Path, served: Repository, monkeypatch: pytest.MonkeyPatch, slipway: Callable[..., Result]
) -> None:
    monkeypatch.chdir(served.path / "docs")
    source = os.path.relpath(parts)
    assert source.startswith("..")
    assert slipway("score", source, "../build/scored").code == 0
    assert (served.path / "build/scored/summary.json").is_file()
    shutil.rmtree(served.path / "build/scored")


def test_the_command_of_the_image_scores_without_a_repository(parts: Path, champion: Path, tmp_path: Path) -> None:
    (parts / "d.csv").touch()
    command = [sys.executable, "-m", "slipway.scoring", str(champion), str(parts), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "summary: 999 of 1,000 rows scored" in done.stdout
    assert done.stderr == "slipway: d.csv is empty; deliver it again (1 of 4 files cannot be scored).\n"


def test_random_numbers_are_read_like_python_reads_them() -> None:
    """Also with a sign, an exponent or 17 digits. Texts that are not numbers in a delivery stay texts."""
    import pyarrow as pa

    random.seed(1)
    numbers = [repr(random.uniform(-1, 1) * 10 ** random.randint(-300, 300)) for _ in range(2_000)]
    assert read_part._numbers(pa.array(numbers)) == [float(each) for each in numbers]
    odd_texts = ["+1", "1.", ".5", "1e5", None, "nan", "inf", "1e999", " 1", "1_0", "0x1", "-"]
    expected = [1.0, 1.0, 0.5, 1e5, None, "nan", "inf", float("inf"), " 1", "1_0", "0x1", "-"]
    assert read_part._numbers(pa.array(odd_texts)) == expected


@pytest.fixture
def lookup_bundle(tmp_path: Path) -> Path:
    """Write the bundle of `odd`, whose graph now also looks up each number in a table with 20,000 rows."""
    folder = tmp_path / "lookup"
    folder.mkdir()
    odd.write_bundle(folder)
    model = onnx.load(folder / MODEL)
    model.graph.node[-1].output[0] = "before"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(20_000, np.float32), "table"))
    model.graph.node.extend(
        [
            onnx.helper.make_node("Cast", ["known"], ["places"], to=onnx.TensorProto.INT64),
            onnx.helper.make_node("Gather", ["table", "places"], ["found"]),
            onnx.helper.make_node("ReduceMax", ["found"], ["most"], axes=[1], keepdims=1),
            onnx.helper.make_node("Add", ["before", "most"], ["prediction"]),
        ]
    )
    onnx.save(model, folder / MODEL)
    return folder


def test_a_row_for_which_the_graph_fails_is_quarantined(lookup_bundle: Path, run: Score, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pd.DataFrame({odd.AREA: [1.0, 2.0, 3.0], "note": "x", "rooms": [1, 4_711_000, 2]}).to_csv(
        tmp_path / "in/a.csv", index=False
    )
    assert run(lookup_bundle).answered == 2
    assert quarantined(tmp_path / "out", "a.csv") == {3: "the model fails for this row (InvalidArgument)"}
    assert answers(tmp_path / "out", "a.csv")["prediction"].tolist() == [11, 23]


def test_the_message_of_an_unexpected_error_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError(f"my password is hunter{1 + 1}")

    monkeypatch.setattr(score, "run", fail)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["slipway.scoring", "bundle", "in", "out"])
    with pytest.raises(SystemExit, match="2"):
        main()
    printed = capsys.readouterr().err
    assert "test_score.py" in printed
    assert "slipway: unexpected ValueError; please report it." in printed
    assert "hunter2" not in printed
