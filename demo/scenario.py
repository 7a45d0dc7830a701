"""Run the scenario of the demo: deliveries arrive, one model ships, another is held, and a release is rolled back."""

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from demo import processes
from demo.environment import AUTHOR, IMAGE, DemoEnvironment, replace
from demo.fakes.github_repo import CHECKS, PullRequest
from demo.fakes.workflow_run import Run
from demo.models import Errors, errors
from demo.timeline import DemoResult, Event
from slipway import artifacts
from slipway.config import SAMPLE_SOURCE
from slipway.contract import load_model
from slipway.errors import CheckFailed
from slipway.integrations import process
from slipway.integrations.git import snapshot
from slipway.pipeline.number_text import with_unit
from slipway.release.component import Deployed
from slipway.release.history import PRODUCTION, STAGING, live
from slipway.release.load_client import LoadClient, Outcome
from slipway.review.report import Replay, Report

SAMPLE = Path(SAMPLE_SOURCE)
WORSE = ("src/model/features.py", '    "latitude",\n    "longitude",\n', "")
WORSE_TITLE = "Drop the location: who needs it?"
OPERATOR = "operator"
"""The clone in which an operator runs `slipway` verbs by hand."""
LOGGED_ROWS = 60


@dataclass
class Scenario:
    """The events of the scenario so far."""

    demo: DemoEnvironment
    on_event: Callable[[Event], None]
    clients: LoadClient | None = None
    events: list[Event] = field(default_factory=list)
    diff: str = ""
    """The changes that the first release commit makes to the overlay, as a diff."""

    def add(self, began: float, title: str, words: str, page: str | None = None) -> None:
        """Record an event that began at `began` and has just ended."""
        now = self.demo.now()
        event = Event(now, now - began, title, words, page)
        self.events.append(event)
        self.on_event(event)

    @property
    def rollouts(self) -> tuple[tuple[float, str], ...]:
        """Pairs of time and bundle: from this time on, `main` named this bundle for production."""
        rollouts = self.demo.agents[PRODUCTION].rollouts
        return tuple((each.began - self.demo.clock, each.bundle) for each in rollouts)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes of all requests so far."""
        return self.clients.outcomes if self.clients else ()


def run_scenario(scenario: Scenario, deliveries: Sequence[Path]) -> DemoResult:
    """Run the scenario to its end. Raises CheckFailed if a workflow has an unexpected result."""
    demo, (first, *later) = scenario.demo, deliveries
    _release_first_model(scenario)
    with ExitStack() as stack:
        scenario.clients = stack.enter_context(demo.clients(first).sending())
        threads = stack.enter_context(ThreadPoolExecutor(2 + len(deliveries)))
        stack.push(_end_programs_on_error)
        threads.submit(load_model)  # imports libraries that are needed at the end
        worse = _open_worse_pull_request(scenario)
        joined = threads.submit(_join_requests, scenario, first)
        held = threads.submit(_review_after, joined, scenario, worse)
        pull = _deliver(scenario, first)
        joined.result()
        if _review(scenario, pull):
            _ship(scenario, pull)
        if held.result():
            raise CheckFailed("A pull request that makes the model worse was merged.")
        # The deliveries arrive shortly after one another, so that the second is judged before the first is merged.
        pulls = []
        for delivery in later:
            pull = _deliver(scenario, delivery)
            pulls.append((pull, threads.submit(_review, scenario, pull)))
        for pull, merged in pulls:
            if merged.result():
                _ship(scenario, pull)
        measured = threads.submit(_measure, scenario, deliveries)
        _roll_back(scenario)
    history = demo.run("slipway", "releases", at=demo.repo.copy("after"))
    return DemoResult(
        events=tuple(scenario.events),
        rollouts=scenario.rollouts,
        outcomes=scenario.outcomes,
        errors=measured.result(),
        diff=scenario.diff,
        history=history,
        cluster=demo.cluster,
    )


def _end_programs_on_error(error: type[BaseException] | None, *_: object) -> None:
    """End all programs after an error, so that the threads that wait for workflows end too."""
    if error:
        processes.end_all()


def _release_first_model(scenario: Scenario) -> None:
    """Release the champion of this repository, with the verbs that the workflow Ship runs."""
    demo, began = scenario.demo, scenario.demo.now()
    work = demo.repo.copy(OPERATOR)
    demo.run("slipway", "candidate", at=work)
    tag = f"sha-{demo.repo.git('rev-parse', 'main'):.12}"
    demo.run("slipway", "image", "build", "build/release/bundle", "--name", IMAGE, "--tag", tag, at=work)
    pushed = demo.run("slipway", "image", "push", f"{IMAGE}:{tag}", at=work)
    digest = re.findall(r"sha256:[0-9a-f]{64}", pushed)[0]
    for environment in (STAGING, PRODUCTION):
        image = ("--image", IMAGE, "--tag", tag, "--digest", digest)
        demo.run("slipway", "promote", environment, *image, at=work)
    bundle = _live(demo).provenance.bundle
    _wait_until(scenario, lambda: len(demo.agents[PRODUCTION].balancer.ports) > 0, "the first model is ready")
    scenario.add(began, "The first model is live", f"bundle {bundle:.7}; from now on, clients send requests throughout")


def _deliver(scenario: Scenario, delivery: Path) -> PullRequest:
    """Put a delivery into the source, and let the workflow New data open its pull request."""
    demo, began = scenario.demo, scenario.demo.now()
    repo, known = demo.repo, set(demo.repo.pulls)
    shutil.copy(delivery, demo.source / f".{delivery.name}")
    (demo.source / f".{delivery.name}").rename(demo.source / delivery.name)
    _require_success(repo.run(repo.start_by_schedule("new-data.yml")))
    opened = set(repo.pulls) - known
    if len(opened) != 1:
        raise CheckFailed(f"No pull request was opened for {delivery.stem}.")
    pull = repo.pulls[opened.pop()]
    scenario.add(began, f"{delivery.stem} is delivered", f"pull request #{pull.number} is opened: {pull.title}")
    return pull


def _join_requests(scenario: Scenario, delivery: Path) -> None:
    """Ship the prediction log of production, and join it with the prices in a delivery."""
    demo, began, logged = scenario.demo, scenario.demo.now(), scenario.demo.logged
    if logged is None:
        return
    _wait_until(scenario, lambda: logged.rows >= LOGGED_ROWS, f"{LOGGED_ROWS} requests are logged")
    for folder in logged.replicas:
        demo.run("slipway", "ship-log", str(folder), str(logged.shipped), at=demo.folder / OPERATOR)
    logged.write_labels(delivery)
    files = (str(logged.shipped), str(logged.labels), "--to", str(logged.joined))
    demo.run("slipway", "join", *files, at=demo.folder / OPERATOR)
    counts = json.loads((demo.folder / OPERATOR / "build/live.json").read_bytes())["counts"]
    words = f"{delivery.stem} has the prices for {counts['joined']:,} of {counts['rows']:,} logged requests"
    scenario.add(began, "The truth is known", words)


def _review_after(joined: "Future[None]", scenario: Scenario, pull: PullRequest) -> bool:
    joined.result()
    return _review(scenario, pull)


def _replay_words(replay: Replay, unit: str) -> str:
    """Describe how the challenger's answers to logged requests differ from the logged answers."""
    if replay.unavailable:
        return f"none, because {replay.unavailable}"
    if replay.refused:
        return f"{replay.refused:,} of {replay.requests:,} logged requests are refused"
    words = f"{replay.moved:.0%} of {replay.requests:,} logged requests get another answer"
    if (truth := replay.truth) is None or truth.unavailable:
        return words
    errors = f"{with_unit(truth.champion, unit)} to {with_unit(truth.challenger, unit)}"
    return f"{words}; on {truth.requests:,} of them with a known price, the error changes from {errors}"


def _review(scenario: Scenario, pull: PullRequest) -> bool:
    """Run the checks of a pull request and post its report. Return whether the pull request was merged."""
    demo, began = scenario.demo, scenario.demo.now()
    repo = demo.repo
    run = repo.run(repo.take(CHECKS, pull))
    report = Report.model_validate_json(repo.reported(run, "report.json"))
    if report.result is None:
        raise CheckFailed(f"Pull request #{pull.number} was not judged: {report.stopped}")
    if report.result.verdict.verdict == "ship":
        _require_success(run)
    page = f"report-{pull.number}.html"
    (demo.folder / page).write_bytes(repo.reported(run, "report.html"))
    comment = repo.run(repo.take("comment.yml", pull))
    merged: str | None = repo.github.state.pulls[str(pull.number)].get("merged")
    in_conflict = comment.jobs.get("merge") == "failure" and "is not mergeable" in comment.log["merge"]
    if not in_conflict:
        _require_success(comment)
    verdict = report.result.verdict
    ends = "" if merged else "; the check is red, and nothing is merged"
    if in_conflict:
        ends = "; main has other data by now, so git finds a conflict, and a person decides"
    scenario.add(began, f"#{pull.number}: {verdict.verdict.upper()}", f"{verdict.reason}{ends}", page=page)
    if replay := report.result.replay:
        scenario.add(
            demo.now(), f"#{pull.number} replays requests", _replay_words(replay, report.result.unit), page=page
        )
    if merged:
        scenario.add(demo.now(), f"#{pull.number} is merged", f"by the workflow Comment: commit {merged:.7} on main")
    return merged is not None


def _ship(scenario: Scenario, pull: PullRequest) -> None:
    """Run the workflow Ship, which was started by the merge of a pull request."""
    demo, repo, began = scenario.demo, scenario.demo.repo, scenario.demo.now()
    before = _live(demo)
    _require_success(repo.run(repo.take("ship.yml")))
    now, commit = _live(demo), repo.git("rev-parse", "main")
    if now == before:
        raise CheckFailed(f"Pull request #{pull.number} was merged, but nothing was released.")
    scenario.diff = scenario.diff or repo.git("show", "--format=", "--unified=1", commit, "--", "kustomize")
    words = f"{now.image.tag}, by commit {commit:.7}; meanwhile, both models answered requests"
    scenario.add(began, f"#{pull.number} is live", words)


def _open_worse_pull_request(scenario: Scenario) -> PullRequest:
    """Open a person's pull request that makes the model worse."""
    repo, began = scenario.demo.repo, scenario.demo.now()
    work = repo.copy("person")
    file, old, new = WORSE
    replace(work / file, old, new)
    process.run("git", *AUTHOR, "commit", "--quiet", "--all", "--message", WORSE_TITLE, at=work)
    pull = repo.push(work, 1, "no-location", title=WORSE_TITLE)
    scenario.add(began, "Ada drops the location", f"pull request #{pull.number} is opened: {WORSE_TITLE}")
    return pull


def _roll_back(scenario: Scenario) -> None:
    """Run the workflow Roll back, and wait until the earlier model answers."""
    demo, began = scenario.demo, scenario.demo.now()
    if len(scenario.rollouts) == 1:
        return scenario.add(began, "Nothing is rolled back", "because no delivery gave a better model")
    _require_success(demo.repo.run(demo.repo.start_by_hand("rollback.yml", environment=PRODUCTION, to="")))
    now, commit = _live(demo), demo.repo.git("rev-parse", "main")
    scenario.add(began, "Rolled back", f"{now.image.tag} again, by commit {commit:.7}")
    return _wait_until(scenario, lambda: _answers(scenario), "the earlier model answers")


def _measure(scenario: Scenario, deliveries: Sequence[Path]) -> Errors:
    """Compute the mean loss of each model that was live, on the deliveries in `main` and of the demo."""
    demo = scenario.demo
    after = demo.repo.copy("measured")
    demo.run("dvc", "pull", "--quiet", "data.dvc", at=after)
    for delivery in deliveries:
        shutil.copy(delivery, after / artifacts.DATA)
    folders = {image.bundle: image.folder / "bundle" for image in demo.engine.images.values()}
    bundles = dict.fromkeys(bundle for _, bundle in scenario.rollouts)
    return errors([folders[bundle] for bundle in bundles], after / artifacts.DATA, datetime.now(UTC).date())


def _live(demo: DemoEnvironment) -> Deployed:
    found = live(snapshot("main", demo.repo.bare), PRODUCTION)
    if found is None:
        raise CheckFailed("Nothing is live in production.")
    return found


def _answers(scenario: Scenario) -> bool:
    """Return whether the last answer came from the model that `main` names for production."""
    return scenario.clients is not None and scenario.clients.last_bundle == _live(scenario.demo).provenance.bundle


def _wait_until(scenario: Scenario, condition: Callable[[], bool], what: str) -> None:
    began = time.monotonic()
    while not condition():
        for agent in scenario.demo.agents.values():
            if agent.error:
                raise CheckFailed(f"The rollout of {agent.environment} failed: {agent.error}")
        if time.monotonic() - began > scenario.demo.timeout:
            raise CheckFailed(f"It took more than {scenario.demo.timeout} s until {what}.")
        time.sleep(0.1)


def _require_success(run: Run) -> None:
    """Raise CheckFailed with the last message of a job if that job failed."""
    for job, result in run.jobs.items():
        if result == "failure":
            printed = re.findall(r"slipway:\S* (.+)", run.log[job]) or run.log[job].strip().splitlines()
            raise CheckFailed(f"{run.workflow} failed in its job {job}: {printed[-1]}")
