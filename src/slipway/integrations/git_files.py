"""Read the files of commits, and write files to git's index and the work tree."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pygit2

from slipway.errors import InputError
from slipway.integrations import process


@dataclass(frozen=True)
class File:
    """A file in a commit: the hash of its content, and its mode."""

    hash: str
    mode: int


def files_of(revision: str, at: Path = Path()) -> dict[str, File]:
    """Return all files of a commit in the repository `at`, by path. Raises InputError if the commit is not found."""
    try:
        tree = pygit2.Repository(str(at)).revparse_single(revision).peel(pygit2.Tree)
    except (pygit2.GitError, KeyError, ValueError):
        raise InputError(f"commit {revision!a} not found; commit first, or fetch it with `git fetch`.") from None
    return dict(_walk(tree, ""))


def read_blob(hash_of_content: str) -> bytes:
    """Return the content of a git object, given by its hash."""
    return bytes(pygit2.Repository(".")[hash_of_content].read_raw())


def write_blob(content: bytes) -> File:
    """Store content as a git object, and return it as a `File` that is not executable."""
    return File(str(pygit2.Repository(".").create_blob(content)), int(pygit2.enums.FileMode.BLOB))


def fetch_tag(url: str, tag: str) -> str:
    """Fetch a tag from another repository without creating a reference, and return its commit.

    Raises InputError if the repository has no such tag or cannot be reached.
    """
    try:
        process.run("git", "fetch", "--quiet", "--no-tags", "--end-of-options", url, f"refs/tags/{tag}")
        return process.run("git", "rev-parse", "--verify", "FETCH_HEAD^{commit}")
    except InputError as error:
        raise InputError(f"The tag {tag!a} of {url} cannot be fetched ({error}).") from None


def uncommitted(*paths: str) -> list[tuple[str, str]]:
    """Return the state and the path of each file that differs from HEAD.

    The state is the two letters that `git status` prints. Untracked files are included, and ignored files are not.
    Without `paths`, the whole work tree is compared.
    """
    listed = process.run("git", "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *paths)
    # process.run strips the space at the start of the output, for example of ` M file`.
    entries = [entry if entry[2:3] == " " else f" {entry}" for entry in listed.split("\0") if entry]
    return [(entry[:2], entry[3:]) for entry in entries]


def write_index_and_files(changes: Mapping[str, File | None]) -> None:
    """Stage all changes in one step, and then update the work tree. A file that `changes` maps to None is removed.

    After an interruption, `git reset --hard` restores the last commit.
    """
    repository = pygit2.Repository(".")
    index = repository.index
    index.read()
    for path, file in changes.items():
        if file is not None:
            index.add(pygit2.IndexEntry(path, pygit2.Oid(hex=file.hash), pygit2.enums.FileMode(file.mode)))
        elif path in index:
            index.remove(path)
    index.write()
    written = [path for path, file in changes.items() if file is not None]
    if written:
        process.run("git", "checkout-index", "--force", "--", *written)
    for path, file in changes.items():
        if file is None:
            remove_file(Path(path))


def remove_file(path: Path) -> None:
    """Remove a file, and then each parent folder that has become empty."""
    path.unlink(missing_ok=True)
    for parent in path.parents[:-1]:
        if not parent.is_dir() or any(parent.iterdir()):
            break
        parent.rmdir()


def _walk(tree: pygit2.Tree, prefix: str) -> Iterator[tuple[str, File]]:
    for entry in tree:
        path = f"{prefix}{entry.name}"
        if isinstance(entry, pygit2.Tree):
            yield from _walk(entry, f"{path}/")
        else:
            yield path, File(str(entry.id), int(entry.filemode))
