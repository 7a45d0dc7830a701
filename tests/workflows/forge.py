"""The demo's forge, as the tests use it: clones are repositories of theirs."""

from conftest import ROOT, Repository
from slipway.demo.stand_ins import forge
from slipway.demo.stand_ins.forge import ACTIONS, TEAM, WHEN, PullRequest, Run
from slipway.review.report import Report

__all__ = ["ACTIONS", "PINS", "TEAM", "WHEN", "Forge", "PullRequest", "Run"]
PINS = forge.pins(ROOT)


class Forge(forge.Forge):
    def clone(self, name: str) -> Repository:
        return Repository(self.copy(name))

    def propose(self, work: Repository, number: int, branch: str, **how: str) -> PullRequest:
        return self.push(work.path, number, branch, **how)

    def report(self, run: Run) -> Report:
        return Report.model_validate_json(self.reported(run, "report.json"))
