"""Promotions and rollbacks are commits on `main`, whoever else pushes: real git, real overlays, no pipeline."""

import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import yaml

from slipway.integrations.git import snapshot
from slipway.release.candidate import Candidate
from slipway.release.history import PRODUCTION, STAGING, images_file, live, origin_file, releases
from tests.slipway.conftest import Repository, Result
from tests.slipway.release.conftest import NAME, flags, image

Offer = Callable[[str], Candidate]
Run = Callable[..., Result]
PROMOTE = """
import os, sys
from slipway.config import load_params
from slipway.release.overlay import Image
from slipway.release.promote import promote
from pathlib import Path
params = load_params(Path("params.yaml"))
for number in map(int, sys.argv[2:]):
    assert promote(sys.argv[1], Image("ghcr.io/team/houses", f"sha-{number:012x}", f"sha256:{number:064x}"), params, {})
"""


def promoted(slipway: Run, environment: str, number: int) -> None:
    result = slipway("promote", environment, *flags(number))
    assert result.code == 0, result.err


def changed(work: Repository, commit: str = "origin/main") -> list[str]:
    return work.must("git", "show", "--name-only", "--format=", commit).split()


def tree(work: Repository, revision: str = "origin/main") -> dict[str, str]:
    """Each file of main with the hash of its content."""
    work.must("git", "fetch", "--quiet", "origin")
    lines = work.must("git", "ls-tree", "-r", revision).splitlines()
    return {line.split("\t")[1]: line.split()[2] for line in lines}


def test_staging_gets_the_overlay_only(work: Repository, offer: Offer, slipway: Run) -> None:
    made = offer("one")
    before = work.must("git", "rev-parse", "origin/main").strip()
    promoted(slipway, STAGING, 1)
    assert changed(work) == [images_file(STAGING), origin_file(STAGING)]
    assert work.must("git", "rev-parse", "origin/main^").strip() == before
    diff = work.must("git", "diff", "--unified=0", "origin/main^", "origin/main")
    added = re.findall(r"^\+ +(.*)", diff, re.MULTILINE)
    assert [yaml.safe_load(line) for line in added] == [
        {"newName": NAME},
        {"newTag": "sha-000000000001"},
        {"digest": f"sha256:{1:064x}"},
        {"slipway/bundle": made.bundle},
        {"slipway/commit": made.commit},
        {"slipway/verdict": "ship: one is better"},
    ]
    now = live(snapshot("origin/main"), STAGING)
    assert now
    assert now.image == image(1)
    assert (now.origin.bundle, now.origin.data, now.origin.version) == (made.bundle, None, None)
    assert work.must("git", "status", "--porcelain") == ""  # nothing of the work tree was touched
    assert live(snapshot("origin/main"), PRODUCTION) is None


def test_production_gets_the_champion_in_the_same_commit(work: Repository, offer: Offer, slipway: Run) -> None:
    made = offer("one")
    promoted(slipway, PRODUCTION, 1)
    assert changed(work) == [
        "champion.dvc",
        "dvc.lock",
        images_file(PRODUCTION),
        origin_file(PRODUCTION),
        "metrics/release.json",
    ]
    assert made.bundle in work.must("git", "show", "origin/main:champion.dvc")


def test_what_is_live_is_not_promoted_again(work: Repository, offer: Offer, slipway: Run) -> None:
    offer("one")
    promoted(slipway, PRODUCTION, 1)
    before = tree(work)
    tip = work.must("git", "rev-parse", "origin/main")
    again = slipway("promote", PRODUCTION, *flags(1))
    assert (again.code, "nothing to do" in again.out) == (0, True)
    assert (tree(work), work.must("git", "rev-parse", "origin/main")) == (before, tip)


def test_a_champion_that_moved_stops_the_release(work: Repository, offer: Offer, slipway: Run) -> None:
    offer("one")
    promoted(slipway, PRODUCTION, 1)
    offer("two")  # of the same commit, which knows nothing of the first
    before = tree(work)
    result = slipway("promote", PRODUCTION, *flags(2))
    assert result.code == 1
    assert "champion.dvc has changed since the candidate was judged" in result.err
    assert tree(work) == before


def test_what_others_have_changed_meanwhile_stays(
    work: Repository, bare: Repository, offer: Offer, slipway: Run, tmp_path: Path
) -> None:
    offer("one")
    other = bare.clone(tmp_path / "other")
    other.edit(images_file(PRODUCTION), "namespace: house-prices", "namespace: elsewhere # ours")
    (other.path / "dvc.lock").write_text("stages: {}\n")
    (other.path / "README.md").write_text("# Other words\n")
    other.commit("By hand")
    other.must("git", "push", "--quiet", "origin", "main")
    promoted(slipway, PRODUCTION, 1)
    assert "namespace: elsewhere # ours" in work.must("git", "show", f"origin/main:{images_file(PRODUCTION)}")
    assert work.must("git", "show", "origin/main:dvc.lock") == "stages: {}\n"
    assert work.must("git", "show", "origin/main:README.md") == "# Other words\n"
    assert "champion.dvc" in changed(work)


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("environment", ["elsewhere", "../../kustomize/overlays/staging", ""])
def test_an_environment_that_is_none(offer: Offer, slipway: Run, environment: str) -> None:
    offer("one")
    result = slipway("promote", environment, *flags(1))
    assert result.code == 2
    assert "the environments there: production, staging" in result.err


@pytest.mark.parametrize(("flag", "value"), [("--tag", "a b"), ("--digest", "sha256:1"), ("--image", "Houses")])
def test_an_image_that_is_none(work: Repository, offer: Offer, slipway: Run, flag: str, value: str) -> None:
    offer("one")
    before = tree(work)
    given = flags(1)
    given[given.index(flag) + 1] = value
    result = slipway("promote", STAGING, *given)
    assert result.code == 2
    assert tree(work) == before


@pytest.mark.usefixtures("work")
def test_no_candidate_no_release(slipway: Run) -> None:
    result = slipway("promote", STAGING, *flags(1))
    assert (result.code, "make it with `slipway candidate`" in result.err) == (2, True)


@pytest.mark.usefixtures("work")
def test_a_bundle_that_was_changed_is_not_released(offer: Offer, slipway: Run) -> None:
    offer("one")
    Path("build/release/bundle/model.onnx").write_text("another")
    result = slipway("promote", PRODUCTION, *flags(1))
    assert (result.code, "is not the bundle that" in result.err) == (2, True)


def test_a_corrupt_overlay_stays_as_it_is(
    work: Repository, bare: Repository, offer: Offer, slipway: Run, tmp_path: Path
) -> None:
    other = bare.clone(tmp_path / "other")
    (other.path / images_file(STAGING)).write_text("images: [")
    other.commit("By hand")
    other.must("git", "push", "--quiet", "origin", "main")
    offer("one")
    result = slipway("promote", STAGING, *flags(1))
    assert (result.code, images_file(STAGING) in result.err) == (2, True)
    work.must("git", "fetch", "--quiet", "origin")
    assert work.must("git", "show", f"origin/main:{images_file(STAGING)}") == "images: ["


def test_a_rule_that_refuses_the_push_is_named(work: Repository, bare: Repository, offer: Offer, slipway: Run) -> None:
    hook = bare.path / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'GH013: Repository rule violations found for refs/heads/main.' >&2\nexit 1\n")
    hook.chmod(0o755)
    offer("one")
    before = tree(work)
    result = slipway("promote", PRODUCTION, *flags(1))
    assert result.code == 1
    assert "SLIPWAY_APP_ID" in result.err
    assert tree(work) == before


def release(work: Repository, offer: Offer, slipway: Run, number: int, words: str) -> dict[str, str]:
    """Release a candidate of the newest commit to production; returns the files of main."""
    work.must("git", "pull", "--quiet", "--ff-only", "origin", "main")
    offer(words)
    promoted(slipway, PRODUCTION, number)
    return tree(work)


def test_a_rollback_brings_back_what_was_byte_for_byte(work: Repository, offer: Offer, slipway: Run) -> None:
    first = release(work, offer, slipway, 1, "one")
    second = release(work, offer, slipway, 2, "two")
    result = slipway("rollback", PRODUCTION)
    assert result.code == 0, result.err
    assert "sha-000000000001 is live in production" in result.out
    assert tree(work) == first != second
    assert work.must("git", "log", "-1", "--format=%s", "origin/main") == "Roll production back to sha-000000000001\n"

    again = slipway("rollback", PRODUCTION)  # not forward to what was taken back
    assert (again.code, "has no earlier release" in again.err) == (1, True)
    named = slipway("rollback", PRODUCTION, "--to", "origin/main^")
    assert named.code == 0
    assert tree(work) == second
    here = slipway("rollback", PRODUCTION, "--to", "origin/main")
    assert (here.code, "nothing to do" in here.out) == (0, True)


def test_a_rollback_keeps_what_came_since(work: Repository, offer: Offer, slipway: Run) -> None:
    release(work, offer, slipway, 1, "one")
    work.must("git", "pull", "--quiet", "origin", "main")
    (work.path / "data.dvc").write_text("outs:\n- md5: 00000000000000000000000000000000.dir\n  path: data\n")
    work.commit("Deliver")
    work.must("git", "push", "--quiet", "origin", "HEAD:main")
    merged = tree(work)
    release(work, offer, slipway, 2, "two")
    assert slipway("rollback", PRODUCTION).code == 0
    assert tree(work) == merged  # the data stays, and dvc.lock is what it was before the release
    work.must("git", "pull", "--quiet", "origin", "main")
    work.edit(images_file(PRODUCTION), "namespace: house-prices", "namespace: elsewhere")
    work.commit("By hand")
    work.must("git", "push", "--quiet", "origin", "HEAD:main")
    assert slipway("rollback", PRODUCTION, "--to", "origin/main~2").code == 0
    assert "namespace: elsewhere" in work.must("git", "show", f"origin/main:{images_file(PRODUCTION)}")
    now = live(snapshot("origin/main"), PRODUCTION)
    assert now
    assert now.image == image(2)


def test_before_the_first_release_there_is_nothing(work: Repository, offer: Offer, slipway: Run) -> None:
    nothing = slipway("rollback", PRODUCTION)
    assert (nothing.code, "Nothing has been released to production yet" in nothing.err) == (1, True)
    release(work, offer, slipway, 1, "one")
    only = slipway("rollback", PRODUCTION)
    assert (only.code, "has no earlier release" in only.err) == (1, True)
    too_early = slipway("rollback", PRODUCTION, "--to", "origin/main^")
    assert (too_early.code, "Nothing was live in production at" in too_early.err) == (1, True)
    unknown = slipway("rollback", PRODUCTION, "--to", "nothing")
    assert (unknown.code, "is no commit of this clone" in unknown.err) == (2, True)


def test_after_three_releases_the_last_good_one_is_meant(work: Repository, offer: Offer, slipway: Run) -> None:
    for number, words in enumerate(("one", "two", "three"), 1):
        release(work, offer, slipway, number, words)
    for expected in (2, 1):
        result = slipway("rollback", PRODUCTION)
        assert f"sha-{expected:012x} is live" in result.out
    listed = slipway("releases").out
    assert [line.split()[3] for line in listed.splitlines() if line.startswith("2")] == [
        image(number).tag for number in (1, 2, 3, 2, 1)
    ]
    assert listed.count("Roll ") == 2


def test_promotions_race_with_each_other_and_with_pushes(
    work: Repository, bare: Repository, offer: Offer, tmp_path: Path
) -> None:
    """All land, no edit is lost, history stays linear."""
    offer("one")
    files = [images_file(STAGING), origin_file(STAGING), images_file(PRODUCTION), "Makefile"]
    clones = [bare.clone(tmp_path / f"promoter-{number}") for number in range(10)]
    for clone in clones:
        clone.must("cp", "-r", str(work.path / "build"), "build")

    def promote(number: int) -> None:
        clones[number].must(sys.executable, "-c", PROMOTE, STAGING, str(number + 1))

    def push(file: str) -> None:
        clone = bare.clone(tmp_path / f"pusher of {Path(file).name}-{len(file)}")
        (clone.path / file).write_text("# Somebody was here\n" + (clone.path / file).read_text())
        clone.commit(f"Edit {file}")
        rebase = (
            "git",
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@localhost",
            "pull",
            "--quiet",
            "--rebase",
            "origin",
            "main",
        )
        while clone.run("git", "push", "--quiet", "origin", "HEAD:main").code:
            clone.must(*rebase)

    with ThreadPoolExecutor(len(clones) + len(files)) as pool:
        done = [*map(partial(pool.submit, promote), range(len(clones))), *map(partial(pool.submit, push), files)]
        for each in done:
            each.result()
    work.must("git", "fetch", "--quiet", "origin")
    assert work.must("git", "rev-list", "--merges", "origin/main") == ""
    assert work.must("git", "rev-list", "--count", "origin/main").strip() == str(1 + len(clones) + len(files))
    tags = {each.live.image.tag for each in releases(snapshot("origin/main"), STAGING)}
    assert tags == {image(number + 1).tag for number in range(len(clones))}
    for file in files:
        assert work.must("git", "show", f"origin/main:{file}").startswith("# Somebody was here")
