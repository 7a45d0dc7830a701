"""Restore the bundle from a pull request's report, if training on `main` gives a bundle with other bytes.

Training a model again can give other bytes: libraries select code by the type of processor, and the fit of some models
is not deterministic. If the reviewed and the new model give the same predictions, the reviewed bundle is released.
"""

import io
import lzma
import re
import shutil
import zipfile
import zlib
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
from slipway.pipeline.server_changes import server_changes
from slipway.release.review_lookup import Review
from slipway.review.reproduce import count_looks

FOLDER = Path("build/reviewed")
ARTIFACT = "bundle"
"""Name of the artifact that contains the bundle of a pull request.

The artifact is needed if the DVC remote is a folder of the repository. The workflow of a pull request cannot push to
such a remote.
"""
MAX_BYTES = 2 << 30
NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""The exceptions that a damaged ZIP archive can cause. For an archive in memory, only damage causes OSError."""


def restore(review: Review, rebuilt: str, params: Params, environ: Mapping[str, str]) -> Verdict:
    """Replace the rebuilt bundle by the reviewed bundle, evaluate the reviewed bundle, and return its verdict.

    `rebuilt` is the hash of the bundle that was trained again. Raises CheckFailed if the reviewed bundle is not found.
    Also raises CheckFailed if the predictions of the two bundles differ on the holdout, or if the server would behave
    differently.
    """
    _fetch(review, rebuilt, environ)
    rows = read_table(artifacts.HOLDOUT)
    bundles = load_bundle(FOLDER), load_bundle(artifacts.BUNDLE)
    if changes := server_changes(*bundles, params.gate.equality_tolerance):
        raise CheckFailed(
            f"Bundle {review.bundle}, which {review.where} showed, differs from {rebuilt} here in "
            f"{', '.join(changes)}, so nothing is released; run the pull request's workflow again."
        )
    reviewed, again = (score(each, rows) for each in bundles)
    if reviewed.shape != again.shape or not answers_agree(reviewed, again, params.gate.equality_tolerance):
        raise CheckFailed(
            f"The pipeline gives bundle {rebuilt} here, {review.where} showed {review.bundle}, and their predictions "
            "differ by more than gate.equality_tolerance, so nothing is released; merge a change that makes `fit` "
            "deterministic."
        )
    with atomic.replacing(artifacts.BUNDLE) as fresh:
        shutil.copytree(FOLDER, fresh)
    process.run("dvc", "commit", "--force", "train")
    process.run("dvc", "repro")
    count_looks()
    return Verdict.read(artifacts.VERDICT)


def _fetch(review: Review, rebuilt: str, environ: Mapping[str, str]) -> None:
    """Download the reviewed bundle from the artifacts of the reviewed commit, and write it to FOLDER."""
    for content in github.artifacts_of(environ, github.CHECKS, review.head, ARTIFACT, MAX_BYTES):
        shutil.rmtree(FOLDER, ignore_errors=True)
        _unpack(content)
        if FOLDER.is_dir() and folder_hash(FOLDER) == review.bundle:
            return
    raise CheckFailed(
        f"The pipeline gives bundle {rebuilt} here, but {review.where} showed {review.bundle}, which is not in the "
        f"artifact `{ARTIFACT}` of any run on {review.head[:12]}, so nothing is released; open the change again, and "
        "merge the model that its run shows."
    )


def _unpack(content: bytes) -> None:
    """Write the files of a ZIP archive to FOLDER. Entries in folders are skipped, because a bundle has no folders."""
    files = _read(content)
    if files:
        FOLDER.mkdir(parents=True)
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)


def _read(content: bytes) -> dict[str, bytes]:
    """Return the files of a ZIP archive by name. Return {} if the archive is damaged, encrypted or too large."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            entries = [each for each in packed.infolist() if NAME.fullmatch(each.filename)]
            if sum(each.file_size for each in entries) > MAX_BYTES:
                return {}
            return {each.filename: packed.read(each) for each in entries}
    except DAMAGES:
        return {}
