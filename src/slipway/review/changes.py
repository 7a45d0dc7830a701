"""Select the pull request jobs that have to run, based on the changed files."""

import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway import artifacts
from slipway.artifacts import Release
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process

JOBS = ("test", "model", "image")
STAGES = Path("dvc.yaml")
NAMING_PATHS = ("deps", "outs", "metrics", "plots", "params")
"""The keys under which a stage of dvc.yaml lists the files that it reads and writes."""

# The path of a folder means all files below it. A changed file that is in none of these lists starts every job.
DOCUMENTS = ("docs/", "LICENSE", "NOTICE")
DATA = ("champion.dvc", "data.dvc", "dvc.lock", "metrics/", "params.yaml", "sample/remote/")
"""Inputs and results of the pipeline, which no test reads."""
CODE = (
    *(
        ".ci/",
        ".dvc/",
        ".github/",
        "benchmarks/",
        "demo/",
        "examples/",
        "kustomize/",
        "requirements/",
        "sample/",
        "src/",
        "tests/",
    ),
    *(".dockerignore", ".dvcignore", ".editorconfig", ".gitattributes", ".gitignore", ".pre-commit-config.yaml"),
    *(".slipway.json", "Dockerfile", "Makefile", "dvc.yaml", "pyproject.toml", "zensical.toml"),
)
PIPELINE = (*DATA, ".dvc/", ".dvcignore", "dvc.yaml", "requirements/train.txt", "src/model/")
"""Files that determine the results of the pipeline, in addition to the paths that its stages list."""
RELEASE_COMPONENTS = ":(glob)kustomize/overlays/*/release/kustomization.yaml"
"""Git's pattern for the release components, which set the image of each environment."""
IMAGE = (
    *(".dockerignore", *artifacts.SOURCES),
    *(f"src/slipway/release/{name}.py" for name in ("image", "load_client", "model_card", "smoke")),
)


@dataclass(frozen=True)
class JobsWithWork:
    """The jobs of a pull request, each true if it has to run. `base` is the commit that HEAD is compared with."""

    base: str
    test: bool
    model: bool
    image: bool


def find_changes(base: str | None) -> JobsWithWork:
    """Compare HEAD with the commit where it branched off from `base`, and select the jobs.

    Raises InputError if `base` is not a commit of this clone, or if dvc.yaml is not valid. Raises CheckFailed if HEAD
    changes the image of an environment, which only a release may do.
    """
    since = merge_base(base)
    _refuse_release_components(since)
    jobs = classify(changed_files(since), pipeline_paths(STAGES))
    if artifacts.RELEASE.is_file() and Release.read(artifacts.RELEASE).champion is None:
        jobs -= {"image"}  # there is no model for an image yet
    return JobsWithWork(since, **{job: job in jobs for job in JOBS})


def _refuse_release_components(since: str) -> None:
    """Raise CheckFailed if a release component differs from `since`, unless its whole overlay was removed.

    No job judges an image that a pull request names, so an agent would deploy any image after the merge.
    """
    printed = process.run(
        "git", "diff", "--name-only", "--no-renames", "--diff-filter=a", "-z", since, "HEAD", "--", RELEASE_COMPONENTS
    )
    for path in filter(None, printed.split("\0")):
        if Path(path).parents[1].is_dir():
            raise CheckFailed(
                f"{path} is changed here, but only a release may change which image an environment runs; undo it with "
                f"`git checkout {since[:12]} {path}`."
            )


def merge_base(base: str | None) -> str:
    """Return the commit where HEAD branched off from `base`. The default is `origin/main`, or else `main`."""
    for name in [base] if base else ["origin/main", "main"]:
        try:
            commit = process.run("git", "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
        except InputError:
            continue
        return process.run("git", "merge-base", commit, "HEAD")
    raise InputError(f"commit {base or 'origin/main'} not found; fetch it with `git fetch origin main`.")


def changed_files(base: str | None) -> tuple[str, ...]:
    """Return the files that HEAD has changed since it branched off from `base`.

    A moved file is listed with its old and its new name.
    """
    # File names are untrusted. The status letter in front of each name preserves leading blanks.
    try:
        printed = process.run("git", "diff", "--name-status", "--no-renames", "-z", merge_base(base), "HEAD")
    except UnicodeDecodeError:
        raise InputError("The name of a changed file is not UTF-8; rename the file.") from None
    return tuple(printed.split("\0")[1::2])


def classify(paths: Collection[str], pipeline: Collection[str]) -> frozenset[str]:
    """Return the jobs that have to run if `paths` changed. `pipeline` lists the paths that stages read or write."""
    return frozenset(job for path in paths for job in _jobs(path, pipeline))


def _jobs(path: str, pipeline: Collection[str]) -> Iterator[str]:
    judged = _lies_in(path, PIPELINE) or any(each in (path, ".") or path.startswith(f"{each}/") for each in pipeline)
    document = path.endswith(".md") or _lies_in(path, DOCUMENTS)
    unknown = not (judged or document or _lies_in(path, CODE))
    if unknown or judged:
        yield "model"
    if unknown or _lies_in(path, IMAGE):
        yield "image"
    if not document and not _lies_in(path, DATA):
        yield "test"


def _lies_in(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place.removesuffix('/')}/") for place in places)


def pipeline_paths(stages: Path, keys: Collection[str] = NAMING_PATHS) -> frozenset[str]:
    """Return the paths that the stages of dvc.yaml list under `keys`. Raises InputError if dvc.yaml is not valid."""
    try:
        named = YAML(typ="safe").load(stages.read_text(encoding="utf-8"))["stages"].values()
        return frozenset(path for stage in named for path in _paths(stage.get("do", stage), keys))
    except (OSError, UnicodeDecodeError, YAMLError, KeyError, TypeError, AttributeError):
        raise InputError(f"{stages} is not valid; run `dvc stage list` to see why.") from None


def _paths(stage: Mapping[str, Any], keys: Collection[str]) -> Iterator[str]:
    for key in keys:
        for entry in stage.get(key, ()):
            if key == "params" and isinstance(entry, str):
                continue  # the entry is a key of params.yaml, not a path
            for path in [entry] if isinstance(entry, str) else entry:
                # A path with a variable can be any path, so use the whole repository instead.
                yield "." if "${" in path else posixpath.normpath(posixpath.join(stage.get("wdir", ""), path))
