"""What a change touches, and so which jobs of its pull request have work to do."""

import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway import artifacts
from slipway.artifacts import Release
from slipway.errors import InputError
from slipway.integrations import process

JOBS = ("test", "model", "image")
STAGES = Path("dvc.yaml")
NAMING_PATHS = ("deps", "outs", "metrics", "plots", "params")
"""Where a stage says what it reads and writes."""

# A path that ends in `/` stands for all that lies below it. What is in none of these, starts every job.
DOCUMENTS = ("docs/", "LICENSE", "NOTICE")
DATA = ("champion.dvc", "data.dvc", "dvc.lock", "metrics/", "params.yaml", "sample/remote/")
"""What the pipeline judges, and no test does."""
CODE = (
    *(".ci/", ".dvc/", ".github/", "benchmarks/", "demo/", "kustomize/", "requirements/", "sample/", "src/", "tests/"),
    *(".dockerignore", ".dvcignore", ".editorconfig", ".gitattributes", ".gitignore", ".pre-commit-config.yaml"),
    *("Dockerfile", "Makefile", "dvc.yaml", "pyproject.toml"),
)
PIPELINE = (*DATA, ".dvc/", ".dvcignore", "dvc.yaml", "requirements/train.txt", "src/model/")
"""What decides what the pipeline gives, beside that which its stages name."""
IMAGE = (
    *(".dockerignore", "Dockerfile", "requirements/serve.txt", "src/slipway/serving/"),
    *(f"src/slipway/{name}.py" for name in ("__init__", "bundle", "errors", "provenance")),
    *(f"src/slipway/release/{name}.py" for name in ("image", "load_client", "smoke")),
)


@dataclass(frozen=True)
class Changed:
    """Which jobs a change gives work to, and the commit that it is compared with."""

    base: str
    test: bool
    model: bool
    image: bool


def run(base: str | None, environ: Mapping[str, str]) -> Changed:
    """Compare HEAD with where it left `base`; say it to the workflow in the file that GITHUB_OUTPUT names, if one is.

    Raises InputError where `base` is no commit here, or where dvc.yaml cannot be read.
    """
    since = merge_base(base)
    touched = classify(changed_files(since), pipeline_paths(STAGES))
    if artifacts.RELEASE.is_file() and Release.read(artifacts.RELEASE).champion is None:
        touched -= {"image"}  # there is nothing to put into one yet
    changed = Changed(since, **{job: job in touched for job in JOBS})
    if output := environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a", encoding="utf-8") as file:
            file.writelines(f"{job}={str(job in touched).lower()}\n" for job in JOBS)
    return changed


def merge_base(base: str | None) -> str:
    """The commit at which HEAD left `base`; None stands for `origin/main`, or `main` where there is no such branch."""
    for name in [base] if base else ["origin/main", "main"]:
        try:
            commit = process.run("git", "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
        except InputError:
            continue
        return process.run("git", "merge-base", commit, "HEAD")
    raise InputError(f"{base or 'origin/main'} is no commit of this clone; fetch it with `git fetch origin main`.")


def changed_files(base: str | None) -> tuple[str, ...]:
    """The files that differ between HEAD and where it left `base`; one that was moved, by both of its names."""
    # Anybody names files. The letter before each keeps blanks in front of the first.
    try:
        told = process.run("git", "diff", "--name-status", "--no-renames", "-z", merge_base(base), "HEAD")
    except UnicodeDecodeError:
        raise InputError("The name of a changed file is not UTF-8; rename it.") from None
    return tuple(told.split("\0")[1::2])


def classify(paths: Collection[str], pipeline: Collection[str]) -> frozenset[str]:
    """The jobs that have work, of JOBS, where `paths` have changed and the stages read or write those of `pipeline`."""
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
    return any(path.startswith(place) if place.endswith("/") else path == place for place in places)


def pipeline_paths(stages: Path, keys: Collection[str] = NAMING_PATHS) -> frozenset[str]:
    """Return the paths that the stages of dvc.yaml list under `keys`. Raises InputError if dvc.yaml is invalid."""
    try:
        named = YAML(typ="safe").load(stages.read_text(encoding="utf-8"))["stages"].values()
        return frozenset(path for stage in named for path in _paths(stage.get("do", stage), keys))
    except (OSError, UnicodeDecodeError, YAMLError, KeyError, TypeError, AttributeError):
        raise InputError(f"{stages} cannot be read as DVC's; `dvc stage list` says where it is wrong.") from None


def _paths(stage: Mapping[str, Any], keys: Collection[str]) -> Iterator[str]:
    for key in keys:
        for entry in stage.get(key, ()):
            if key == "params" and isinstance(entry, str):
                continue  # a key of params.yaml
            for path in [entry] if isinstance(entry, str) else entry:
                # A name into which DVC puts a value can be any.
                yield "." if "${" in path else posixpath.normpath(posixpath.join(stage.get("wdir", ""), path))
