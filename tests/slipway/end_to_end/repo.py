"""Steps of the tests with a repository on the fake of GitHub: clone, propose, check, comment, read the report."""

from typing import Any

from demo.fakes.github_repo import CHECKS, GitHubRepo, PullRequest
from demo.fakes.workflow_run import Run
from slipway.review.report import Report
from tests.slipway.conftest import Repository


def clone(repo: GitHubRepo, name: str) -> Repository:
    """Make a clone with `main` checked out."""
    return Repository(repo.copy(name))


def propose(repo: GitHubRepo, work: Repository, number: int, branch: str, **how: Any) -> PullRequest:
    """Open a pull request for the last commit of a clone, or push that commit to the open one."""
    return repo.push(work.path, number, branch, **how)


def check(repo: GitHubRepo, pull: PullRequest) -> Run:
    """Run what GitHub has started to check a pull request."""
    return repo.run(repo.take(CHECKS, pull))


def comment(repo: GitHubRepo, pull: PullRequest) -> Run:
    """Run what GitHub has started to post a report."""
    return repo.run(repo.take("comment.yml", pull))


def read_report(repo: GitHubRepo, run: Run) -> Report:
    """Read the report of a run."""
    return Report.model_validate_json(repo.reported(run, "report.json"))
