"""Replace the framework of a fork with another version from the template.

`.slipway.json` contains the hash that each framework file has in the template. A framework file with another hash was
changed by the fork. This comparison needs no git history of the template. After all changes are planned, the git index
is replaced in one step. The files in the work tree are written last. `git reset --hard` therefore undoes an interrupted
update.
"""

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway import artifacts
from slipway.config import has_secret
from slipway.errors import CheckFailed, InputError
from slipway.fork.manifest import MANIFEST, read_manifest
from slipway.fork.record import RECORD, Record
from slipway.integrations import process
from slipway.integrations.git_files import (
    File,
    fetch_tag,
    files_of,
    read_blob,
    uncommitted,
    write_blob,
    write_index_and_files,
)
from slipway.review.changes import STAGES, classify, pipeline_paths

CHANGELOG = "CHANGELOG.md"
MODEL_PACKAGES = Path("requirements/model.in")
LIST_PROBLEMS = (
    "from pathlib import Path; from slipway.config import params_problems; "
    "print(*params_problems(Path('params.yaml')), sep='\\n')"
)


@dataclass(frozen=True)
class Update:
    """A planned update from the version `before` to `version`. `changes` maps a file to None if the file is removed."""

    before: str
    version: str
    changes: Mapping[str, File | None]
    kept: tuple[str, ...]
    """Framework files that the update does not replace, because --keep names them."""
    added: int
    removed: int
    notes: tuple[str, ...]
    """The upgrade notes of each version after `before`, up to `version`."""
    jobs: frozenset[str]
    """The jobs of the workflow `Pull request` that have to run for the changed files."""


def plan(tag: str, source: str | None, keep: Collection[str]) -> Update:
    """Plan the update to a tag of the template.

    `source` is the address of the template. The default is the address of the last update. Raises InputError if the tag
    cannot be fetched or is not a version of the framework. Raises CheckFailed if the work tree is not clean, or if the
    fork changed a framework file that is not in `keep`.
    """
    record = _read_record()
    if dirty := uncommitted():
        raise CheckFailed(f"{dirty[0][1]} has uncommitted changes; commit or remove it, then update.")
    url = source or record.template
    if url is None:
        raise InputError("The address of the template is unknown; pass it with --from URL (needed only once).")
    if has_secret(url):
        raise InputError(
            f"The address of the template contains a secret, which {RECORD} would publish; pass --from URL without a "
            "user and a query string, and let a credential helper of git supply the secret."
        )
    there, here = files_of(fetch_tag(url, tag)), files_of("HEAD")
    if str(MANIFEST) not in there:
        raise InputError(f"The tag {tag!a} of {url} has no {MANIFEST}, so it is not a version to update to.")
    manifest = read_manifest(read_blob(there[str(MANIFEST)].hash))
    fresh = {path: file for path, file in there.items() if manifest.is_framework(path)}

    removed = [path for path in record.files if path not in there or manifest.owner(path) == "template"]
    wanted: dict[str, File | None] = {**fresh, **dict.fromkeys(removed)}
    differing = {path: file for path, file in wanted.items() if here.get(path) != file}
    locks = {path for path in differing if manifest.owner(path) == "locks"}
    changed = {path for path in differing if _hash(here, path) != record.files.get(path)} - locks
    _check_changed(changed, set(keep))
    # A lock file that the template did not change is kept, because the fork may have added packages to it.
    same = {path for path in locks if _hash(there, path) == record.files.get(path)}
    changes = {path: file for path, file in differing.items() if path not in changed | same}
    content = Record(
        template=url,
        version=tag,
        identity=record.identity,
        files={path: file.hash for path, file in sorted(fresh.items())},
    ).content()
    if content != RECORD.read_bytes():
        changes[str(RECORD)] = write_blob(content)
    return Update(
        before=record.version,
        version=tag,
        changes=changes,
        kept=tuple(sorted(changed)),
        added=sum(path not in here for path in changes),
        removed=sum(file is None for file in changes.values()),
        notes=tuple(_upgrade_notes(*(_text(CHANGELOG, files) for files in (here, there)))),
        jobs=classify([path for path in changes if path != str(RECORD)], pipeline_paths(STAGES)),
    )


def apply(update: Update) -> None:
    """Write the changed files and stage them in git."""
    write_index_and_files(update.changes)


def problems_of_params() -> list[str]:
    """List the problems that the new version finds in params.yaml. Start a new process, which imports the new code."""
    try:
        return process.run(sys.executable, "-c", LIST_PROBLEMS).splitlines()
    except InputError as error:
        return [f"{artifacts.PARAMS} cannot be checked ({error}); run `make setup`, then `slipway verdict`."]


def next_steps(update: Update) -> Iterator[tuple[str, str]]:
    """Yield the commands to run after an update, each with the reason."""
    if any(path == "pyproject.toml" or path.startswith("requirements/") for path in update.changes):
        if _has_model_packages():
            yield "make lock", f"adds the packages of {MODEL_PACKAGES} to the new locks"
        yield "make setup", "installs the new versions of packages"
    if any(path.startswith("src/slipway/monitoring/manifests/") for path in update.changes):
        yield "make manifests", "compiles the alerts with the new code"
    if "model" in update.jobs:
        yield "make pipeline", "trains and judges the model with the new code; it ships only with the verdict `ship`"
    if "image" in update.jobs:
        yield "make image", "builds and tests the image, because the server changes"
    yield "make test", "checks that src/model/ implements src/slipway/contract.py"
    yield "git commit -m 'Update the framework'", "on a branch, for a pull request"


def _read_record() -> Record:
    if not RECORD.is_file():
        raise InputError(f"{RECORD} is missing, so the version of the framework is unknown; run `slipway init` first.")
    return Record.parse(RECORD.read_bytes())


def _hash(files: Mapping[str, File], path: str) -> str | None:
    return files[path].hash if path in files else None


def _check_changed(changed: set[str], keep: set[str]) -> None:
    if unknown := sorted(keep - changed):
        raise InputError(f"--keep {unknown[0]} is not a file of the framework that was changed here; leave it out.")
    if refused := sorted(changed - keep):
        raise CheckFailed(
            f"{len(refused)} files of the framework were changed here: {', '.join(refused)}; undo the changes, or pass "
            "--keep FILE for each file that the update must not overwrite."
        )


def _has_model_packages() -> bool:
    lines = MODEL_PACKAGES.read_text(encoding="utf-8").splitlines() if MODEL_PACKAGES.is_file() else []
    return any(line.partition("#")[0].strip() for line in lines)


def _text(path: str, files: Mapping[str, File]) -> str:
    return read_blob(files[path].hash).decode(errors="replace") if path in files else ""


def _upgrade_notes(before: str, now: str) -> Iterator[str]:
    """Yield the upgrade notes of each version that is in the changelog `now`, but not in the changelog `before`."""
    known = set(re.findall(r"^## (.+)$", before, re.MULTILINE))
    for section in re.split(r"^## ", now, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        notes = re.search(r"^### Upgrade\n+(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)
        if title not in known and notes:
            yield from (f"{title}: {' '.join(item.split())}" for item in re.split(r"^- ", notes[1], flags=re.M)[1:])
