"""Every file of the template has one owner."""

import re
import subprocess

import pytest

from slipway.errors import InputError
from slipway.fork.manifest import read_manifest, this_manifest
from tests.slipway.conftest import ROOT

LISTED = subprocess.run(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
).stdout.decode()
FILES = [name for name in LISTED.split("\0") if name and (ROOT / name).is_file()]


def test_every_file_of_the_template_has_an_owner() -> None:
    """Name a new file in src/slipway/fork/manifest.yaml if this fails."""
    manifest = this_manifest()
    assert [name for name in FILES if manifest.owner(name) is None] == []


def test_every_entry_of_the_manifest_exists() -> None:
    missing = [each for each in this_manifest().entries if not any(name.startswith(each) for name in FILES)]
    assert missing == []


@pytest.mark.parametrize("page", [name for name in FILES if name.endswith(".md")])
def test_no_page_of_a_fork_links_to_what_init_removes(page: str) -> None:
    """`make check` of a fork builds the documentation and fails at a broken link."""
    manifest = this_manifest()
    if manifest.owner(page) == "framework":
        for link in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
            if "://" not in link:
                target = (ROOT / page).parent.joinpath(link).resolve().relative_to(ROOT).as_posix()
                assert manifest.owner(target) == "framework", link


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("docs/clusters.md", "framework"),
        ("docs/decisions/gate.md", "template"),
        (".github/workflows/ship.yml", "framework"),
        (".github/workflows/cluster.yml", "template"),
        (".github/CODEOWNERS", "fork"),
        ("requirements/dev.txt", "locks"),
        ("requirements/serve.txt", "framework"),
        ("src/model/train.py", "fork"),
        ("src/model_of_ours/train.py", None),
    ],
)
def test_the_longest_entry_decides(path: str, owner: str | None) -> None:
    assert this_manifest().owner(path) == owner


@pytest.mark.parametrize("content", [b"", b"\xff", b"framework: [", b"framework: []\n", b"[]"])
def test_an_invalid_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="is not a manifest"):
        read_manifest(content)
