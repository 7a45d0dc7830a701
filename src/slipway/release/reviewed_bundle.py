"""Restore the bundle that the report of a pull request showed, if the pipeline gives other bytes on `main`.

Libraries choose code by processor, and some fits are not deterministic, so a model that is trained again can have other
bytes. The reviewed bundle is then released, if both models give the same predictions.
"""

import io
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from slipway import artifacts, atomic
from slipway.artifacts import Verdict
from slipway.bundle import folder_hash, load_bundle
from slipway.config import Params
from slipway.errors import CheckFailed
from slipway.integrations import github, process
from slipway.pipeline.evaluate import score
from slipway.pipeline.gate import answers_agree
from slipway.pipeline.parquet import read_table
from slipway.release.review_lookup import Review
from slipway.review.comment import CHECKS

FOLDER = Path("build/reviewed")
ARTIFACT = "bundle"
"""The artifact of a checked run that contains the bundle. The embedded DVC remote cannot be pushed to."""
MAX_BYTES = 2 << 30


def restore(review: Review, rebuilt: str, params: Params, environ: Mapping[str, str]) -> Verdict:
    """Put the reviewed bundle in place of the one that was trained again, judge it, and return the verdict.

    Raises CheckFailed if the reviewed bundle is not found, or if the bundle `rebuilt` gives other predictions on the
    holdout.
    """
    _fetch(review, rebuilt, environ)
    rows = read_table(artifacts.HOLDOUT)
    reviewed, again = (score(load_bundle(folder), rows) for folder in (FOLDER, artifacts.BUNDLE))
    if reviewed.shape != again.shape or not answers_agree(reviewed, again, params.gate.equality_tolerance):
        raise CheckFailed(
            f"Bundle {rebuilt} is built here, {review.where} showed {review.bundle}, and their predictions differ by "
            "more than gate.equality_tolerance, so nothing is released; make `fit` deterministic, and merge that."
        )
    with atomic.replacing(artifacts.BUNDLE) as fresh:
        shutil.copytree(FOLDER, fresh)
    process.run("dvc", "commit", "--force", "train")
    process.run("dvc", "repro")
    return Verdict.read(artifacts.VERDICT)


def _fetch(review: Review, rebuilt: str, environ: Mapping[str, str]) -> None:
    """Write the reviewed bundle to FOLDER, from an artifact of a run on the reviewed commit."""
    for content in github.artifacts_of(environ, CHECKS, review.head, ARTIFACT, MAX_BYTES):
        shutil.rmtree(FOLDER, ignore_errors=True)
        _unpack(content)
        if FOLDER.is_dir() and folder_hash(FOLDER) == review.bundle:
            return
    raise CheckFailed(
        f"Bundle {rebuilt} is built here, but {review.where} showed {review.bundle}, which no run on "
        f"{review.head[:12]} has as its artifact `{ARTIFACT}`, so nothing is released; run its workflow again, then "
        "merge."
    )


def _unpack(content: bytes) -> None:
    """Write the files of a ZIP archive to FOLDER. A bundle has no folders, so a path elsewhere is not written."""
    FOLDER.mkdir(parents=True)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            entries = [each for each in packed.infolist() if Path(each.filename).name == each.filename]
            if sum(each.file_size for each in entries) <= MAX_BYTES:
                for each in entries:
                    (FOLDER / each.filename).write_bytes(packed.read(each))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):  # also an encrypted one
        shutil.rmtree(FOLDER)
