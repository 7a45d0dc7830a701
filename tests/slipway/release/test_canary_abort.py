"""A canary that its analysis aborts ends as a rollback commit, which the agent, the registry and the issue follow."""

import random
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from demo.fakes.agent import Agent
from demo.fakes.balancer import Balancer
from demo.fakes.github_server import GitHub, State
from slipway.integrations.git import Snapshot, snapshot
from slipway.provenance import Provenance
from slipway.release import registry, rollout
from slipway.release.candidate import Candidate
from slipway.release.history import PRODUCTION, live
from tests.slipway.conftest import ROOT, Repository, Result
from tests.slipway.release.conftest import Clock, flags, image
from tests.slipway.release.test_rollout import URL

Run = Callable[..., Result]
ABORTED_AFTER = 240
"""Seconds after which the analysis of the canary fails. Until then, two thirds of the pods have the new model."""


class Canary:
    """A workload like a Rollout with canary steps: it returns to the stable model if the analysis fails."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.chance = clock, random.Random(3)
        self.stable: Provenance | None = None
        self.new: Provenance | None = None
        self.began = 0.0

    def roll_out(self, _: Any, main: Snapshot) -> None:
        found = live(main, PRODUCTION)
        assert found
        if self.stable in (None, found.provenance):  # a rollback to the stable model skips the steps
            self.stable, self.new = found.provenance, None
        else:
            self.new, self.began = found.provenance, self.clock.now

    def ask(self, url: str) -> Provenance:
        assert url == URL
        assert self.stable
        is_canary = self.new and self.clock.now < self.began + ABORTED_AFTER and self.chance.random() < 2 / 3
        return self.new if self.new and is_canary else self.stable

    def update(self) -> None: ...

    def end(self) -> None: ...


class Images:
    """A registry of images whose bundles are their digests."""

    def find(self, digest: str) -> Any:
        return SimpleNamespace(bundle=digest)


@pytest.fixture
def canary(bare: Repository, monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[Agent, Canary]]:
    clock = Clock()
    canary = Canary(clock)

    def workload(_: Balancer) -> Canary:
        return canary

    monkeypatch.setattr(rollout, "time", clock)
    monkeypatch.setattr(rollout, "ask", canary.ask)
    with Agent(PRODUCTION, bare.path, Images(), workload).following() as agent:  # type: ignore[arg-type]
        yield agent, canary


@pytest.fixture
def aliases(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The aliases of a model registry in memory, whose versions are bundles."""
    found: dict[str, str] = {}
    monkeypatch.setattr(registry, "is_configured", lambda _: True)
    monkeypatch.setattr(registry, "version_of", lambda _, bundle: bundle)
    monkeypatch.setattr(registry, "point", lambda _, alias, version: found.update({alias: version}))
    return found


def wait_for_rollout(agent: Agent, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(agent.rollouts) < number:
        assert agent.error is None, agent.error
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ship(slipway: Run, agent: Agent, number: int) -> list[tuple[str, int]]:
    """Run the verbs of the job `production` of the workflow Ship. Return each with its exit code."""
    steps = yaml.safe_load((ROOT / ".github/workflows/ship.yml").read_text())["jobs"][PRODUCTION]["steps"]
    done: list[tuple[str, int]] = []
    failed = False
    for step in steps:
        verb, *arguments = step.get("run", "").split()[1:] or [""]
        if not step.get("run", "").startswith("slipway ") or failed != ("failure()" in step.get("if", "")):
            continue
        result = slipway(verb, *arguments, *(flags(number) if verb == "promote" else ()))
        done.append((verb, result.code))
        failed |= result.code != 0
        if verb == "promote":
            assert not failed, result.err
            wait_for_rollout(agent, number)
    return done


def test_an_aborted_canary_becomes_a_rollback_commit(
    work: Repository,
    bare: Repository,
    offer: Callable[[str], Candidate],
    slipway: Run,
    canary: tuple[Agent, Canary],
    aliases: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, rollouts = canary
    work.edit("params.yaml", "urls: {}", f"urls: {{production: {URL}}}")
    with GitHub(State(), tmp_path).serving() as github:
        for name, value in github.variables().items():
            monkeypatch.setenv(name, value)
        good = offer("good").provenance.bundle
        assert [code for _, code in ship(slipway, agent, 1)] == [0, 0]
        assert aliases == {"champion": good}
        work.must("git", "pull", "--quiet", "--rebase", "--autostash", "origin", "main")
        offer("bad")
        assert ship(slipway, agent, 2) == [("promote", 0), ("deploy", 1), ("rollback", 0), ("report-failure", 0)]
        (issue,) = github.state.issues
    wait_for_rollout(agent, 3)
    now = live(snapshot("main", bare.path), PRODUCTION)
    assert now
    assert (now.image, now.provenance.bundle) == (image(1), good)
    assert rollouts.new is None
    assert aliases == {"champion": good}
    assert f"production is back at {image(1).tag}" in issue["body"]
    assert bare.must("git", "log", "--format=%s", "-1", "main").strip() == f"Roll production back to {image(1).tag}"
    assert f"md5: {good}.dir" in bare.must("git", "show", "main:champion.dvc")
