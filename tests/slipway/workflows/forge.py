"""The demo's forge, as the tests use it: clones are repositories of theirs."""

from demo.fakes import github_repo
from demo.fakes.github_repo import ACTIONS, TEAM, WHEN, PullRequest, Run
from slipway.review.report import Report
from tests.slipway.conftest import ROOT, Repository

__all__ = ["ACTIONS", "PINS", "TEAM", "WHEN", "Forge", "PullRequest", "Run"]
PINS = github_repo.pins(ROOT)


class Forge(github_repo.Forge):
    def clone(self, name: str) -> Repository:
        return Repository(self.copy(name))

    def propose(self, work: Repository, number: int, branch: str, **how: str) -> PullRequest:
        return self.push(work.path, number, branch, **how)

    def report(self, run: Run) -> Report:
        return Report.model_validate_json(self.reported(run, "report.json"))
