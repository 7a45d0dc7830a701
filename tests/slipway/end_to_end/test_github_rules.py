"""The workflows work by the rules of github.com that docs/decisions/demo.md lists, also without a GitHub App."""

from collections.abc import Sequence

import pytest

from demo.fakes.github_repo import CHECKS, GitHubRepo
from demo.fakes.workflow_run import Run
from slipway.release.history import PRODUCTION
from tests.slipway.end_to_end.repo import check, clone, comment, propose
from tests.slipway.end_to_end.test_pull_request import document
from tests.slipway.end_to_end.test_ship import SHIPPED, deliver, released, shipping, watching

__all__ = ["shipping", "watching"]


def conclusions(runs: Sequence[Run]) -> list[tuple[str, str | None]]:
    return [(each.workflow, each.conclusion) for each in runs]


def test_a_delivery_is_released_with_the_token_of_the_workflow_alone(
    shipping: GitHubRepo,
    bases: dict[str, str],
) -> None:
    """GitHub sends nothing for what that token does, so each workflow starts the next one."""
    repo, before = shipping, released(shipping, PRODUCTION)
    repo.settings |= bases
    deliver(repo, "1997H2")
    repo.start_by_hand("new-data.yml")
    runs = {each.workflow: each for each in repo.settle()}
    assert sorted(conclusions(list(runs.values()))) == [
        ("comment.yml", "success"),
        ("new-data.yml", "success"),
        (CHECKS, "success"),
        ("ship.yml", "success"),
    ], {name: run.log for name, run in runs.items()}
    assert "pull request 1 is checked (success), and comment.yml is started" in runs["new-data.yml"].log["propose"]
    assert "pull request 1 is merged" in runs["comment.yml"].log["merge"]
    assert runs["ship.yml"].jobs == SHIPPED
    assert {name: run.needless for name, run in runs.items() if run.needless} == {
        CHECKS: {"model": ["pull-requests: read"], "pass": ["pull-requests: read"]},  # for the label `ship-anyway`
        "ship.yml": {
            "candidate": ["actions: read"],  # for a bundle that training again does not give
            "staging": ["issues: write"],  # for a release that fails
            "production": ["issues: write"],
        },
    }
    merged = repo.github.state.pulls["1"]["merged"]
    assert released(repo, PRODUCTION).provenance.commit == merged != before.provenance.commit
    assert "SHIP" in repo.github.state.bodies(1)[0]


def test_a_held_delivery_is_reported_with_the_token_of_the_workflow_alone(watching: GitHubRepo) -> None:
    """The next run of New data leaves it alone."""
    repo = watching
    deliver(repo, "1997H2", rows=120)  # too few for a verdict
    repo.start_by_hand("new-data.yml")
    assert dict(conclusions(repo.settle())) == {
        "new-data.yml": "success",
        CHECKS: "failure",
        "comment.yml": "success",
    }
    (body,) = repo.github.state.bodies(1)
    assert "HOLD" in body
    assert "merged" not in repo.github.state.pulls["1"]

    repo.start_by_hand("new-data.yml")
    (run,) = repo.settle()
    assert "each open delivery has its report" in run.log["propose"]


@pytest.mark.parametrize("workflow", ["new-data.yml", "monitor.yml", "cluster.yml"])
def test_schedules_are_off_until_a_variable_turns_them_on(repo: GitHubRepo, workflow: str) -> None:
    """GitHub does not bill a skipped job."""
    assert repo.run(repo.start_by_schedule(workflow)).jobs == {}


def test_a_release_does_not_cancel_a_waiting_rollback(repo: GitHubRepo) -> None:
    repo.start_by_hand("ship.yml").status = "in_progress"
    rollback = repo.start_by_hand("rollback.yml", environment=PRODUCTION)
    pushed = repo.push_to_main()
    assert pushed
    assert repo.queued == [rollback]
    assert (rollback.status, pushed.status) == ("queued", "queued")


def test_a_branch_of_a_fork_with_the_name_of_a_delivery_is_not_merged(repo: GitHubRepo) -> None:
    pull = document(repo, 8, branch="delivery/1997H2", source="mallory/houses")
    assert check(repo, pull).conclusion == "success"
    assert comment(repo, pull).jobs == {"charts": "success", "comment": "success"}


def test_checks_that_wait_for_approval_are_not_commented_on(repo: GitHubRepo) -> None:
    """GitHub sends `workflow_run` for the run of a first-time contributor that waits for approval."""
    repo.approves_forks = True
    work = clone(repo, "first")
    (work.path / "README.md").write_text("# Other words\n")
    work.commit("Words")
    pull = propose(repo, work, 8, "words", source="mallory/houses", login="mallory")
    (run,) = [each for each in repo.runs if each.workflow == CHECKS]
    assert run.conclusion == "action_required"
    assert comment(repo, pull).jobs == {}


@pytest.mark.parametrize("labels_first", [True, False])
def test_a_label_at_opening_starts_no_second_check(repo: GitHubRepo, labels_first: bool) -> None:
    """GitHub keeps the checks of both runs on the commit, and sends the two events in any order."""
    pull = document(repo, labels=["documentation"], labels_first=labels_first)
    assert sorted(each.workflow for each in repo.runs) == ["label.yml", CHECKS]
    assert repo.run(repo.take("label.yml")).jobs == {}
    check(repo, pull)
    assert repo.may_merge(pull)


def test_another_label_does_not_cancel_the_run_that_reads_the_override(repo: GitHubRepo) -> None:
    pull = document(repo)
    run = repo.take(CHECKS, pull)
    run.status = "in_progress"
    repo.label(pull, "documentation", "grace")
    assert (run.status, run.outcome) == ("in_progress", "")
