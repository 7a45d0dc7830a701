"""Turn a copy of the template into a project: set the names, and remove the sample and other files of the template.

All edits are planned and checked before the first edit. Only files that git can restore are changed. After an
interruption, run `slipway init` again. It skips finished steps. `data.dvc` is changed last, because the next run finds
the sample by the content of `data.dvc`.
"""

import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from slipway import artifacts, atomic
from slipway.config import SAMPLE_SOURCE
from slipway.errors import CheckFailed
from slipway.fork.identity import TEMPLATE, Identity, holds, places, replacements, rewrite
from slipway.fork.manifest import this_manifest
from slipway.fork.record import RECORD, Record
from slipway.integrations import process
from slipway.integrations.git_files import files_of, remove_file, uncommitted

OBJECTS = Path("sample/remote/files/md5")
OLDEST = "1993H1.csv"
"""The oldest delivery of the sample. If data.dvc contains this file, the data is still the sample."""
OWNERS, OWNER = Path(".github/CODEOWNERS"), "@YOUR-ORGANISATION/"
SOURCE = ("source: ", SAMPLE_SOURCE)
README, NOTICE = Path("README.md"), Path("NOTICE")
PAGES = {  # the first words of each file in the template, and its content in a new fork
    NOTICE: (
        "Slipway ships with a sample data set",
        "State here where the data of this project comes from, its licence, what was changed, and its known faults.\n",
    ),
    README: (
        "# Slipway\n",
        """\
# {name}

State here what the model predicts, who uses the predictions, and who maintains the model.

This repository uses the framework Slipway. The report on a pull request compares the new model with the model in
production. Merging the pull request releases exactly the new model.

[Make it yours](docs/make-it-yours.md) shows every step up to the first release, and [the documentation](docs/README.md)
lists the other tasks. `make` lists the make targets, and `slipway --help` the verbs. `make test` checks that
`src/model/` implements the interface in `src/slipway/contract.py`.
""",
    ),
}


@dataclass(frozen=True)
class Kept:
    """A line that is not replaced, because a person changed it. `expected` is the line that `init` would write."""

    file: Path
    expected: str


@dataclass(frozen=True)
class Plan:
    """The edits of `init`. `folders` are removed, and `files` are written. A file with the content None is removed."""

    files: Mapping[Path, bytes | None]
    folders: tuple[Path, ...]
    kept: tuple["Kept", ...]

    @property
    def is_empty(self) -> bool:
        return not self.files and not self.folders


def present_identity() -> Identity:
    """Return the identity that the last run of `init` recorded. Without such a run, return the template's identity."""
    content = _content(RECORD)
    return Record.parse(content).identity if content else TEMPLATE


def plan(new: Identity) -> Plan:
    """Plan the edits that set the identity `new` and remove the template's own files.

    Raises CheckFailed if a file to change has uncommitted changes, or if data/ contains more than the sample.
    """
    edits, kept = _identity_edits(new)
    sample = _sample()
    wanted = {**edits, **_template_files(), RECORD: _record(new), **(_emptied(sample) if sample else {})}
    planned = {path: content for path, content in wanted.items() if _content(path) != content}
    folders = tuple(folder for folder in _template_folders() if folder.is_dir())
    _check_restorable(*planned, *folders, *(place.file for place in kept))
    return Plan(planned, folders, kept)


def apply(planned: Plan) -> None:
    """Make the planned edits. Each file is written completely or not at all."""
    if planned.files.get(artifacts.DATA_DVC):
        for folder in (artifacts.DATA, artifacts.CHAMPION):
            with atomic.replacing(folder) as fresh:
                fresh.mkdir()
    for folder in planned.folders:
        shutil.rmtree(folder)
    for path, content in planned.files.items():
        if content is None:
            remove_file(path)
        else:
            with atomic.replacing(path) as fresh:
                fresh.write_bytes(content)


@dataclass(frozen=True)
class Size:
    """The number of files and the number of lines in three parts of a fork.

    `own` is the size of the fork's files. `code` is the size of src/slipway/, and `outside` is the size of the
    framework's other files.
    """

    own: tuple[int, int]
    outside: tuple[int, int]
    code: tuple[int, int]


def measure() -> Size:
    """Count the files and lines of this repository, without the data in sample/remote/."""
    manifest = this_manifest()
    listed = process.run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    files = [path for path in map(Path, filter(None, listed)) if path.is_file() and OBJECTS not in path.parents]
    framework = [path for path in files if manifest.is_framework(path.as_posix())]
    code = [path for path in framework if path.is_relative_to("src/slipway")]
    groups = (set(files) - set(framework), set(framework) - set(code), code)
    return Size(*((len(group), sum(path.read_bytes().count(b"\n") for path in group)) for group in groups))


def _identity_edits(new: Identity) -> tuple[dict[Path, bytes], tuple[Kept, ...]]:
    """Plan to replace each name and address that the template or an earlier run wrote."""
    former = (TEMPLATE, present_identity())
    edits: dict[Path, bytes] = {}
    kept = []
    for file, expected in places(new).items():
        path = Path(file)
        if not path.is_file():
            continue
        changes = replacements(file, former, new)
        if path == artifacts.PARAMS:
            changes[SOURCE] = ""
        text = rewrite(path.read_bytes().decode(), changes)
        edits[path] = text.encode()
        kept += [Kept(path, key + value) for key, value in expected if not holds(text, (key, value))]
    if OWNERS.is_file():
        edits[OWNERS] = OWNERS.read_bytes().replace(OWNER.encode(), f"@{new.repository.split('/')[-2]}/".encode())
    for path, (first_words, text) in PAGES.items():
        if (_content(path) or b"").startswith(first_words.encode()):
            edits[path] = text.format(name=new.name).encode()
    return edits, tuple(kept)


def _template_folders() -> list[Path]:
    """Return the template's folders to remove, without sample/remote/, which can contain the fork's data."""
    folders = [
        Path(entry) for entry, owner in this_manifest().entries.items() if owner == "template" and entry[-1] == "/"
    ]
    return [Path(SAMPLE_SOURCE) if folder == Path("sample") else folder for folder in folders]


def _template_files() -> dict[Path, None]:
    return dict.fromkeys(
        Path(entry) for entry, owner in this_manifest().entries.items() if owner == "template" and entry[-1] != "/"
    )


def _record(new: Identity) -> bytes:
    """Return the content of `.slipway.json` with the new identity.

    If the file exists, its version and hashes stay the same. Otherwise the version is read from pyproject.toml, and the
    hashes of the framework files are read from the last commit.
    """
    if content := _content(RECORD):
        return Record.parse(content).model_copy(update={"identity": new}).content()
    version = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    manifest = this_manifest()
    files = {path: file.hash for path, file in files_of("HEAD").items() if manifest.is_framework(path)}
    return Record(template=None, version=version, identity=new, files=files).content()


def _check_restorable(*paths: Path) -> None:
    """Raise CheckFailed if a file at or below one of the paths has uncommitted changes."""
    checked = [str(path) for path in paths if path != RECORD]
    for state, path in uncommitted(*checked) if checked else ():
        if "D" not in state:
            raise CheckFailed(f"{path} has uncommitted changes; commit or restore it, so that nothing is lost.")


def _sample() -> dict[str, str] | None:
    """Return the hash of each file in data.dvc, by path. Return None if these files are not the sample."""
    listed = _content(_object(artifacts.data_hash() or artifacts.EMPTY))
    files = {each["relpath"]: each["md5"] for each in json.loads(listed or b"[]")}
    return files if OLDEST in files else None


def _emptied(tracked: Mapping[str, str]) -> dict[Path, bytes | None]:
    """Plan to remove the data, the champion, the metrics, and the sample's files in sample/remote/."""
    more = [path for path in artifacts.DATA.rglob("*") if path.is_file() and not _is_tracked(path, tracked)]
    if more:
        raise CheckFailed(
            f"{more[0]} is not part of the sample, and `slipway init` empties data/; move it away until init is done."
        )
    empty, listing = _object(artifacts.EMPTY), _object(str(artifacts.data_hash()))
    objects = sorted(path for path in OBJECTS.rglob("*") if path.is_file() and path not in (empty, listing))
    return {
        empty: b"[]",
        artifacts.LOCK: b"schema: '2.0'\nstages: {}\n",
        artifacts.RELEASE: b'{"champion": null}\n',
        artifacts.EVALUATION: None,
        artifacts.VERDICT: None,
        **dict.fromkeys(objects),
        artifacts.CHAMPION_DVC: _empty_folder(artifacts.CHAMPION),
        artifacts.DATA_DVC: _empty_folder(artifacts.DATA),
        listing: None,
    }


def _object(folder_hash: str) -> Path:
    """Return the path of the file in sample/remote/ that lists the files of a DVC folder."""
    return OBJECTS / folder_hash[:2] / f"{folder_hash[2:]}.dir"


def _is_tracked(path: Path, tracked: Mapping[str, str]) -> bool:
    known = tracked.get(path.relative_to(artifacts.DATA).as_posix())
    return known is not None and md5(path.read_bytes(), usedforsecurity=False).hexdigest() == known


def _empty_folder(folder: Path) -> bytes:
    return f"outs:\n- md5: {artifacts.EMPTY}.dir\n  size: 0\n  nfiles: 0\n  hash: md5\n  path: {folder}\n".encode()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
