"""Releases and rollbacks are commits on `main`, also while others push: real git, real overlays, no pipeline."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from slipway.integrations.git import snapshot
from slipway.release import promote as promote_module
from slipway.release.candidate import FILE, Candidate
from slipway.release.component import Deployed, Image
from slipway.release.history import PRODUCTION, STAGING, live, overlay_file, release_file, releases
from tests.slipway.conftest import Repository, Result
from tests.slipway.release.conftest import flags, image

Offer = Callable[[str], Candidate]
Run = Callable[..., Result]


def promoted(slipway: Run, environment: str, number: int) -> None:
    result = slipway("promote", environment, *flags(number))
    assert result.code == 0, result.err


def changed(work: Repository, commit: str = "origin/main") -> list[str]:
    return work.must("git", "show", "--name-only", "--format=", commit).split()


def tree(work: Repository, revision: str = "origin/main") -> dict[str, str]:
    """Return the files of a commit, each with the hash of its content."""
    work.must("git", "fetch", "--quiet", "origin")
    lines = work.must("git", "ls-tree", "-r", revision).splitlines()
    return {line.split("\t")[1]: line.split()[2] for line in lines}


def test_promote_to_staging_changes_only_the_release_component(work: Repository, offer: Offer, slipway: Run) -> None:
    made = offer("one")
    before = work.must("git", "rev-parse", "origin/main").strip()
    promoted(slipway, STAGING, 1)
    assert changed(work) == [release_file(STAGING)]
    assert work.must("git", "rev-parse", "origin/main^").strip() == before
    assert live(snapshot("origin/main"), STAGING) == Deployed(image(1), made.provenance, None)
    assert work.must("git", "status", "--porcelain") == ""  # the work tree is not touched
    assert live(snapshot("origin/main"), PRODUCTION) is None


def test_one_commit_promotes_the_batch_image_and_a_rollback_restores_it(
    work: Repository, offer: Offer, slipway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [f"sha256:{number:064x}" for number in (7, 8)]
    for number, digest in enumerate(digests, start=1):
        offer(f"words {number}")
        result = slipway("promote", STAGING, *flags(number), "--batch-digest", digest)
        assert result.code == 0, result.err
        assert changed(work) == [release_file(STAGING)]
        work.must("git", "pull", "--quiet")
    assert slipway("rollback", STAGING).code == 0
    deployed = live(snapshot("origin/main"), STAGING)
    assert deployed
    assert deployed.batch == Image(image(1).name, f"{image(1).tag}-batch", digests[0])
    monkeypatch.setenv("SLIPWAY_BATCH_DIGEST", "")  # the workflow did not build a batch image
    offer("words 3")
    promoted(slipway, STAGING, 3)
    deployed = live(snapshot("origin/main"), STAGING)
    assert deployed
    assert (deployed.image, deployed.batch) == (image(3), None)


def test_promote_adds_a_batch_image_to_the_live_release(work: Repository, offer: Offer, slipway: Run) -> None:
    offer("one")
    promoted(slipway, STAGING, 1)
    digest = f"sha256:{7:064x}"
    assert slipway("promote", STAGING, *flags(1), "--batch-digest", digest).code == 0
    deployed = live(snapshot("origin/main"), STAGING)
    assert deployed
    assert deployed.batch
    assert deployed.batch.digest == digest
    assert "nothing to do" in slipway("promote", STAGING, *flags(1), "--batch-digest", digest).out
    assert changed(work) == [release_file(STAGING)]
    assert slipway("promote", STAGING, *flags(1), "--batch-digest", "sha256:1").code == 2


def test_promote_to_production_also_changes_the_champion(work: Repository, offer: Offer, slipway: Run) -> None:
    made = offer("one")
    promoted(slipway, PRODUCTION, 1)
    assert changed(work) == [
        "champion.dvc",
        "dvc.lock",
        release_file(PRODUCTION),
        "metrics/release.json",
    ]
    assert made.provenance.bundle in work.must("git", "show", "origin/main:champion.dvc")


def test_promote_is_a_no_op_when_the_image_is_already_live(work: Repository, offer: Offer, slipway: Run) -> None:
    offer("one")
    promoted(slipway, PRODUCTION, 1)
    before = tree(work)
    tip = work.must("git", "rev-parse", "origin/main")
    again = slipway("promote", PRODUCTION, *flags(1))
    assert (again.code, "nothing to do" in again.out) == (0, True)
    assert (tree(work), work.must("git", "rev-parse", "origin/main")) == (before, tip)


def test_promote_sets_an_output_if_it_made_a_release(
    work: Repository, offer: Offer, slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed run rolls back only its own release."""
    assert work
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    offer("one")
    for _ in range(2):
        promoted(slipway, STAGING, 1)
    assert (tmp_path / "output").read_text().splitlines() == ["released=true", "released=false"]


def test_promote_does_not_repeat_a_release_that_was_rolled_back(
    work: Repository, offer: Offer, slipway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As "Re-run failed jobs" of a run of Ship whose release to production failed."""
    release(work, offer, slipway, 1, "one")
    release(work, offer, slipway, 2, "two")
    assert slipway("rollback", PRODUCTION).code == 0
    before, back = tree(work), work.must("git", "rev-parse", "origin/main")[:12]
    words = f"was rolled back by {back}; merge a change that gives another bundle, or release this one"
    for number in (2, 3):  # also as another image of the same bundle
        result = slipway("promote", PRODUCTION, *flags(number))
        assert (result.code, words in result.err, tree(work)) == (1, True, before), result.err
    promoted(slipway, STAGING, 2)
    monkeypatch.setenv("SLIPWAY_AGAIN", "true")
    promoted(slipway, PRODUCTION, 2)
    monkeypatch.setenv("SLIPWAY_AGAIN", "false")
    promoted(slipway, PRODUCTION, 2)  # it is live, so there is nothing to do


def test_promote_fails_if_another_model_was_released_meanwhile(work: Repository, offer: Offer, slipway: Run) -> None:
    offer("one")
    promoted(slipway, PRODUCTION, 1)
    offer("two")  # made from the same commit, before the first release
    before = tree(work)
    result = slipway("promote", PRODUCTION, *flags(2))
    assert result.code == 1
    assert "champion.dvc has changed since the candidate was judged" in result.err
    assert tree(work) == before


def test_promote_of_a_new_server_fails_if_the_champion_was_rolled_back_meanwhile(
    work: Repository, offer: Offer, slipway: Run
) -> None:
    for number in (1, 2):
        offer(f"words {number}")
        promoted(slipway, PRODUCTION, number)
        work.must("git", "pull", "--quiet")
    same = offer("words 2").model_copy(update={"files": ()})  # the champion with another server
    same.write(FILE)
    assert slipway("rollback", PRODUCTION).code == 0
    before = tree(work)
    result = slipway("promote", PRODUCTION, *flags(3), "--again")
    assert result.code == 1
    assert "champion.dvc has changed since the candidate was judged" in result.err
    assert tree(work) == before
    same.model_copy(update={"files": ("dvc.lock",)}).write(FILE)
    assert slipway("promote", PRODUCTION, *flags(3)).code == 1


def test_promote_keeps_the_changes_of_others(
    work: Repository, bare: Repository, offer: Offer, slipway: Run, tmp_path: Path
) -> None:
    offer("one")
    other = bare.clone(tmp_path / "other")
    other.edit(overlay_file(PRODUCTION), "namespace: house-prices", "namespace: elsewhere # ours")
    (other.path / "dvc.lock").write_text("stages: {}\n")
    (other.path / "README.md").write_text("# Other words\n")
    other.commit("By hand")
    other.must("git", "push", "--quiet", "origin", "main")
    promoted(slipway, PRODUCTION, 1)
    assert "namespace: elsewhere # ours" in work.must("git", "show", f"origin/main:{overlay_file(PRODUCTION)}")
    assert work.must("git", "show", "origin/main:dvc.lock") == "stages: {}\n"
    assert work.must("git", "show", "origin/main:README.md") == "# Other words\n"
    assert "champion.dvc" in changed(work)


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("environment", ["elsewhere", "../../kustomize/overlays/staging", ""])
def test_promote_lists_the_environments_if_the_name_is_unknown(offer: Offer, slipway: Run, environment: str) -> None:
    offer("one")
    result = slipway("promote", environment, *flags(1))
    assert result.code == 2
    assert "environments there: production, staging" in result.err


@pytest.mark.parametrize(("flag", "value"), [("--tag", "a b"), ("--digest", "sha256:1"), ("--image", "Houses")])
def test_promote_refuses_an_invalid_image(work: Repository, offer: Offer, slipway: Run, flag: str, value: str) -> None:
    offer("one")
    before = tree(work)
    given = flags(1)
    given[given.index(flag) + 1] = value
    result = slipway("promote", STAGING, *given)
    assert result.code == 2
    assert tree(work) == before


@pytest.mark.usefixtures("work")
def test_promote_needs_a_candidate(slipway: Run) -> None:
    result = slipway("promote", STAGING, *flags(1))
    assert (result.code, "make it with `slipway candidate`" in result.err) == (2, True)


@pytest.mark.usefixtures("work")
def test_promote_refuses_a_bundle_that_was_changed(offer: Offer, slipway: Run) -> None:
    offer("one")
    Path("build/release/bundle/model.onnx").write_text("another")
    result = slipway("promote", PRODUCTION, *flags(1))
    assert (result.code, "is not the bundle that" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (overlay_file(STAGING), "images: [", "in commit"),
        (overlay_file(STAGING), "components: []", "does not list `release` under `components`"),
        (release_file(STAGING), "images: [", "is not as `slipway promote` writes it"),
    ],
)
def test_promote_refuses_a_damaged_overlay(
    work: Repository,
    bare: Repository,
    offer: Offer,
    slipway: Run,
    tmp_path: Path,
    file: str,
    content: str,
    words: str,
) -> None:
    other = bare.clone(tmp_path / "other")
    (other.path / file).write_text(content)
    other.commit("By hand")
    other.must("git", "push", "--quiet", "origin", "main")
    offer("one")
    result = slipway("promote", STAGING, *flags(1))
    assert (result.code, f"{file} {words}" in result.err) == (2, True), result.err
    work.must("git", "fetch", "--quiet", "origin")
    assert work.must("git", "show", f"origin/main:{file}") == content


def test_promote_names_the_rule_of_origin(work: Repository, bare: Repository, offer: Offer, slipway: Run) -> None:
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


def test_rollback_restores_main_byte_for_byte(work: Repository, offer: Offer, slipway: Run) -> None:
    first = release(work, offer, slipway, 1, "one")
    second = release(work, offer, slipway, 2, "two")
    result = slipway("rollback", PRODUCTION)
    assert result.code == 0, result.err
    assert "sha-000000000001 is live in production" in result.out
    assert tree(work) == first != second
    assert work.must("git", "log", "-1", "--format=%s", "origin/main") == "Roll production back to sha-000000000001\n"

    again = slipway("rollback", PRODUCTION)  # not forward to the release that was rolled back
    assert (again.code, "has no earlier release" in again.err) == (1, True)
    named = slipway("rollback", PRODUCTION, "--to", "origin/main^")
    assert named.code == 0
    assert tree(work) == second
    here = slipway("rollback", PRODUCTION, "--to", "origin/main")
    assert (here.code, "nothing to do" in here.out) == (0, True)


def test_rollback_keeps_later_data_and_edits(work: Repository, offer: Offer, slipway: Run) -> None:
    release(work, offer, slipway, 1, "one")
    work.must("git", "pull", "--quiet", "origin", "main")
    (work.path / "data.dvc").write_text("outs:\n- md5: 00000000000000000000000000000000.dir\n  path: data\n")
    work.commit("Deliver")
    work.must("git", "push", "--quiet", "origin", "HEAD:main")
    merged = tree(work)
    release(work, offer, slipway, 2, "two")
    assert slipway("rollback", PRODUCTION).code == 0
    assert tree(work) == merged  # the data stays, and dvc.lock is as before the release
    work.must("git", "pull", "--quiet", "origin", "main")
    work.edit(overlay_file(PRODUCTION), "namespace: house-prices", "namespace: elsewhere")
    work.commit("By hand")
    work.must("git", "push", "--quiet", "origin", "HEAD:main")
    assert slipway("rollback", PRODUCTION, "--to", "origin/main~2").code == 0
    assert "namespace: elsewhere" in work.must("git", "show", f"origin/main:{overlay_file(PRODUCTION)}")
    now = live(snapshot("origin/main"), PRODUCTION)
    assert now
    assert now.image == image(2)


def test_a_shallow_clone_neither_releases_nor_rolls_back(
    work: Repository, bare: Repository, offer: Offer, slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases A, B, a rollback to A, and C. Without the first of them, two rollbacks would restore B."""
    for number, words in enumerate(("A", "B"), 1):
        release(work, offer, slipway, number, words)
    assert slipway("rollback", PRODUCTION).code == 0
    before = release(work, offer, slipway, 3, "C")
    work.must("git", "clone", "--quiet", "--depth=3", f"file://{bare.path}", str(tmp_path / "shallow"))
    shallow = Repository(tmp_path / "shallow")
    shallow.must("cp", "-r", str(work.path / "build"), "build")
    monkeypatch.chdir(shallow.path)
    for verb in (["rollback", PRODUCTION], ["promote", PRODUCTION, *flags(4)]):
        result = slipway(*verb)
        assert (result.code, "fetch them with `git fetch --unshallow`" in result.err) == (1, True), result
    assert tree(shallow) == before


def test_rollback_fails_without_an_earlier_release(work: Repository, offer: Offer, slipway: Run) -> None:
    nothing = slipway("rollback", PRODUCTION)
    assert (nothing.code, "Nothing has been released to production yet" in nothing.err) == (1, True)
    release(work, offer, slipway, 1, "one")
    only = slipway("rollback", PRODUCTION)
    assert (only.code, "has no earlier release" in only.err) == (1, True)
    too_early = slipway("rollback", PRODUCTION, "--to", "origin/main^")
    assert (too_early.code, "Nothing was live in production at" in too_early.err) == (1, True)
    unknown = slipway("rollback", PRODUCTION, "--to", "nothing")
    assert (unknown.code, "commit 'nothing' not found" in unknown.err) == (2, True)


def test_rollback_twice_restores_the_release_before_last(work: Repository, offer: Offer, slipway: Run) -> None:
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


def test_a_second_attempt_of_a_workflow_run_does_not_roll_back_further(
    work: Repository, offer: Offer, slipway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, words in enumerate(("one", "two", "three"), 1):
        release(work, offer, slipway, number, words)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/houses")
    for run, expected in (("7", 2), ("7", 2), ("77", 1), ("7", 1)):
        monkeypatch.setenv("GITHUB_RUN_ID", run)
        result = slipway("rollback", PRODUCTION)
        assert (result.code, f"sha-{expected:012x} is live" in result.out) == (0, True)
    assert work.must("git", "log", "--format=%B", "origin/main").count("Workflow run: https://") == 2


def test_rollback_after_a_model_came_back_restores_the_one_before_it(
    work: Repository, offer: Offer, slipway: Run
) -> None:
    """Releases Z, A, B, a rollback to A, and B again: the next rollback restores A with its champion."""
    release(work, offer, slipway, 1, "Z")
    of_a = release(work, offer, slipway, 2, "A")
    release(work, offer, slipway, 3, "B")
    assert slipway("rollback", PRODUCTION).code == 0
    assert slipway("rollback", PRODUCTION, "--to", "origin/main^").code == 0
    assert tree(work)[release_file(PRODUCTION)] != of_a[release_file(PRODUCTION)]
    result = slipway("rollback", PRODUCTION)
    assert f"{image(2).tag} is live" in result.out, result.err
    assert tree(work) == of_a


def test_rollback_after_a_batch_image_was_added_restores_another_model(
    work: Repository, offer: Offer, slipway: Run
) -> None:
    """A second run of Ship has added the batch image to the release that fails."""
    first = release(work, offer, slipway, 1, "one")
    release(work, offer, slipway, 2, "two")
    result = slipway("promote", PRODUCTION, *flags(2), "--batch-digest", f"sha256:{7:064x}")
    assert result.code == 0, result.err
    result = slipway("rollback", PRODUCTION, "--digest", str(image(2).digest))
    assert f"{image(1).tag} is live" in result.out, result
    assert tree(work) == first


def test_rollback_does_not_restore_a_release_that_a_person_has_reverted(
    work: Repository, offer: Offer, slipway: Run
) -> None:
    """The first release has no earlier release, so its revert is the only rollback."""
    release(work, offer, slipway, 1, "bad")
    work.must("git", "pull", "--quiet", "--ff-only", "origin", "main")
    work.must("git", "-c", "user.name=T", "-c", "user.email=t@localhost", "revert", "--no-edit", "HEAD")
    work.must("git", "push", "--quiet", "origin", "HEAD:main")
    second = release(work, offer, slipway, 2, "worse")
    result = slipway("rollback", PRODUCTION)
    assert (result.code, "has no earlier release" in result.err, tree(work)) == (1, True, second), result


def test_rollback_of_a_failed_release_is_a_no_op_if_a_person_has_rolled_it_back(
    work: Repository, offer: Offer, slipway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases Z, A and B, and a rollback to A while B is rolled out. The failed run must not restore Z."""
    release(work, offer, slipway, 1, "Z")
    of_a = release(work, offer, slipway, 2, "A")
    release(work, offer, slipway, 3, "B")
    assert slipway("rollback", PRODUCTION).code == 0
    monkeypatch.setenv("SLIPWAY_DIGEST", str(image(3).digest))
    result = slipway("rollback", PRODUCTION)
    assert (result.code, tree(work)) == (0, of_a)
    assert f"{image(2).tag} is live in production: nothing to do" in result.out
    monkeypatch.setenv("SLIPWAY_DIGEST", str(image(2).digest))
    assert f"{image(1).tag} is live" in slipway("rollback", PRODUCTION).out


def test_a_rollback_does_not_undo_a_release_that_is_made_meanwhile(
    work: Repository, bare: Repository, offer: Offer, slipway: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, words in enumerate(("one", "two"), 1):
        release(work, offer, slipway, number, words)
    older = snapshot("origin/main")
    release(work, offer, slipway, 3, "three")
    monkeypatch.setattr(promote_module, "tip", lambda _: older)
    result = slipway("rollback", PRODUCTION)
    assert (result.code, f"{image(3).tag} was released to production meanwhile" in result.err) == (1, True), result
    assert bare.must("git", "log", "--format=%s", "-1", "main").startswith(f"Release {image(3).tag}")
    asked = slipway("rollback", PRODUCTION, "--to", f"{older.name}^")
    assert f"{image(1).tag} is live" in asked.out, asked


def test_promotions_race_with_each_other_and_with_pushes(
    work: Repository, bare: Repository, offer: Offer, tmp_path: Path
) -> None:
    """All are pushed, no edit is lost, and the history stays linear."""
    offer("one")
    files = [overlay_file(STAGING), overlay_file(PRODUCTION), "Makefile"]
    clones = [bare.clone(tmp_path / f"promoter-{number}") for number in range(10)]
    for clone in clones:
        clone.must("cp", "-r", str(work.path / "build"), "build")

    def promote(number: int) -> None:
        clones[number].must("slipway", "promote", STAGING, *flags(number + 1))

    def push(file: str) -> None:
        clone = bare.clone(tmp_path / f"pusher of {Path(file).name}-{len(file)}")
        (clone.path / file).write_text("# An edit\n" + (clone.path / file).read_text())
        clone.commit(f"Edit {file}")
        identity = ("-c", "user.name=T", "-c", "user.email=t@localhost")
        while clone.run("git", "push", "--quiet", "origin", "HEAD:main").code:
            clone.must("git", *identity, "pull", "--quiet", "--rebase", "origin", "main")

    with ThreadPoolExecutor(len(clones) + len(files)) as pool:
        done = [*map(partial(pool.submit, promote), range(len(clones))), *map(partial(pool.submit, push), files)]
        for each in done:
            each.result()
    work.must("git", "fetch", "--quiet", "origin")
    assert work.must("git", "rev-list", "--merges", "origin/main") == ""
    assert work.must("git", "rev-list", "--count", "origin/main").strip() == str(1 + len(clones) + len(files))
    tags = {each.deployed.image.tag for each in releases(snapshot("origin/main"), STAGING)}
    assert tags == {image(number + 1).tag for number in range(len(clones))}
    for file in files:
        assert work.must("git", "show", f"origin/main:{file}").startswith("# An edit")
