"""The whole loop, played on a stage: what arrives, what is judged, what ships, what is held, and the way back."""

import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from demo import processes
from demo.environment import AUTHOR, IMAGE, Stage, clients, replace
from demo.fakes.github_repo import PullRequest, Run
from demo.load import Load, Outcome
from demo.models import Errors, errors
from demo.timeline import Event, Played
from slipway import artifacts
from slipway.config import SAMPLE_SOURCE
from slipway.contract import load_model
from slipway.errors import CheckFailed
from slipway.integrations import process
from slipway.integrations.git import snapshot
from slipway.release.component import Deployed
from slipway.release.history import PRODUCTION, STAGING, live
from slipway.review.report import Report

SAMPLE = Path(SAMPLE_SOURCE)
WORSE = ("src/model/features.py", '    "latitude",\n    "longitude",\n', "")
TITLE = "Drop the location: who needs it?"


@dataclass
class Story:
    """What has happened so far."""

    stage: Stage
    told: Callable[[Event], None]
    load: Load | None = None
    events: list[Event] = field(default_factory=list)
    diff: str = ""
    """Of the first release: what the commit changed of the overlay."""

    def tell(self, began: float, title: str, words: str, page: str | None = None) -> None:
        now = self.stage.now()
        event = Event(now, now - began, title, words, page)
        self.events.append(event)
        self.told(event)

    @property
    def named(self) -> tuple[tuple[float, str], ...]:
        """The bundles that `main` named as live in production, and when."""
        rollouts = self.stage.agents[PRODUCTION].rollouts
        return tuple((each.began - self.stage.clock, each.bundle) for each in rollouts)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return self.load.outcomes if self.load else ()


def play(story: Story, deliveries: Sequence[Path]) -> Played:
    """Play it to its end; raises CheckFailed where a workflow does not do what it should."""
    stage, (first, *later) = story.stage, deliveries
    _release_first(story)
    with ExitStack() as stack:
        story.load = stack.enter_context(clients(stage).sending())
        others = stack.enter_context(ThreadPoolExecutor(1 + len(deliveries)))
        stack.push(_end_what_runs)
        others.submit(load_model)  # its libraries are needed at the end
        worse = _drop_a_feature(story)
        held = others.submit(_review, story, worse, lambda pull: stage.forge.check(pull, "opened"))
        delivered = _deliver(story, first)
        merges = _review(story, delivered, stage.forge.ask)
        if merges:
            _land(story, delivered)
        if held.result():
            raise CheckFailed("A pull request that makes the model worse would be merged.")
        # They come shortly after one another, so that the second is judged before the first is decided.
        reviews = []
        for delivery in later:
            pull = _deliver(story, delivery)
            reviews.append((pull, others.submit(_review, story, pull, stage.forge.ask)))
        for pull, review in reviews:
            if review.result():
                _land(story, pull)
        wrong = others.submit(_measure, story, deliveries)
        _go_back(story)
    history = stage.run("slipway", "releases", at=stage.forge.copy("after"))
    return Played(tuple(story.events), story.named, story.outcomes, wrong.result(), story.diff, history, stage.cluster)


def _end_what_runs(error: type[BaseException] | None, *_: object) -> None:
    """Where something goes wrong, the workflows that run beside it are not waited for."""
    if error:
        processes.end_all()


def _release_first(story: Story) -> None:
    """The champion of this repository, released by the verbs of the workflow Ship."""
    stage, began = story.stage, story.stage.now()
    work = stage.forge.copy("operator")
    stage.run("slipway", "candidate", at=work)
    tag = f"sha-{stage.forge.git('rev-parse', 'main'):.12}"
    stage.run("slipway", "image", "build", "build/release/bundle", "--name", IMAGE, "--tag", tag, at=work)
    pushed = stage.run("slipway", "image", "push", f"{IMAGE}:{tag}", at=work)
    digest = re.findall(r"sha256:[0-9a-f]{64}", pushed)[0]
    for environment in (STAGING, PRODUCTION):
        image = ("--image", IMAGE, "--tag", tag, "--digest", digest)
        stage.run("slipway", "promote", environment, *image, at=work)
    bundle = _live(stage).provenance.bundle
    _until(story, lambda: len(stage.agents[PRODUCTION].balancer.ports) > 0, "the first model is ready")
    story.tell(began, "The live model answers", f"bundle {bundle:.7}; from here on clients ask it all the time")


def _deliver(story: Story, delivery: Path) -> PullRequest:
    """A file arrives in the source, and the workflow that looks there opens a pull request."""
    stage, began = story.stage, story.stage.now()
    forge, known = stage.forge, set(stage.forge.github.state.pulls)
    shutil.copy(delivery, stage.source / f".{delivery.name}")
    (stage.source / f".{delivery.name}").rename(stage.source / delivery.name)
    _must(forge.look_for_data(), "new-data.yml")
    opened = set(forge.github.state.pulls) - known
    if len(opened) != 1:
        raise CheckFailed(f"No pull request was opened for {delivery.stem}.")
    pull = forge.opened(int(opened.pop()))
    story.tell(began, f"{delivery.stem} is delivered", f"pull request #{pull.number} is opened: {pull.title}")
    return pull


def _review(story: Story, pull: PullRequest, check: Callable[[PullRequest], Run]) -> bool:
    """A pull request is checked and its report posted; returns whether that merges it."""
    stage, began = story.stage, story.stage.now()
    run = check(pull)
    report = Report.model_validate_json(stage.forge.reported(run, "report.json"))
    if report.judged is None:
        raise CheckFailed(f"Pull request #{pull.number} was not judged: {report.stopped}")
    _must(stage.forge.comment(run), "comment.yml")
    page = f"report-{pull.number}.html"
    (stage.folder / page).write_bytes(stage.forge.reported(run, "report.html"))
    merges = "merging" in stage.forge.github.state.pulls[str(pull.number)]
    verdict = report.judged.verdict
    words = f"{verdict.reason}" + ("" if merges else "; the check is red, and nothing is merged")
    story.tell(began, f"#{pull.number}: {verdict.verdict.upper()}", words, page=page)
    return merges


def _land(story: Story, pull: PullRequest) -> None:
    """What merges itself is merged, unless `main` has moved since it was opened, and shipped."""
    stage, forge, began = story.stage, story.stage.forge, story.stage.now()
    if forge.git("rev-parse", f"{pull.merge}^1") != forge.git("rev-parse", "main"):
        words = "main has other data since, so that git finds a conflict, and a person decides"
        return story.tell(began, f"#{pull.number} cannot be merged any more", words)
    before = _live(stage)
    merged = forge.merge(pull)
    story.tell(began, f"#{pull.number} merges itself", f"commit {merged:.7} on main")
    began = stage.now()
    _must(forge.ship(), "ship.yml")
    now, commit = _live(stage), forge.git("rev-parse", "main")
    if now == before:
        raise CheckFailed(f"Pull request #{pull.number} was merged, and nothing was released.")
    story.diff = story.diff or forge.git("show", "--format=", "--unified=1", commit, "--", "kustomize")
    words = f"{now.image.tag}, by commit {commit:.7}; requests in the meantime were answered by one of the two"
    return story.tell(began, f"#{pull.number} is live", words)


def _drop_a_feature(story: Story) -> PullRequest:
    """A person's pull request, which makes the model worse."""
    stage, began = story.stage, story.stage.now()
    work = stage.forge.copy("person")
    file, old, new = WORSE
    replace(work / file, old, new)
    process.run("git", *AUTHOR, "commit", "--quiet", "--all", "--message", TITLE, at=work)
    pull = stage.forge.push(work, 1, "no-location", title=TITLE)
    story.tell(began, "Somebody drops the location", f"pull request #{pull.number} is opened: {TITLE}")
    return pull


def _go_back(story: Story) -> None:
    stage, began = story.stage, story.stage.now()
    if len(story.named) == 1:
        return story.tell(began, "Nothing is rolled back", "as no delivery has made a better model")
    _must(stage.forge.roll_back(PRODUCTION), "rollback.yml")
    now, commit = _live(stage), stage.forge.git("rev-parse", "main")
    story.tell(began, "Rolled back", f"{now.image.tag} again, by commit {commit:.7}")
    return _until(story, lambda: _is_answered(story), "the model that was brought back answers")


def _measure(story: Story, deliveries: Sequence[Path]) -> Errors:
    """Each model that was live, on the data of `main` and on what was delivered."""
    stage = story.stage
    after = stage.forge.copy("measured")
    stage.run("dvc", "pull", "--quiet", "data.dvc", at=after)
    for delivery in deliveries:
        shutil.copy(delivery, after / artifacts.DATA)
    folders = {image.bundle: image.folder / "bundle" for image in stage.engine.images.values()}
    live = dict.fromkeys(bundle for _, bundle in story.named)
    return errors([folders[bundle] for bundle in live], after / artifacts.DATA, datetime.now(UTC).date())


def _live(stage: Stage) -> Deployed:
    found = live(snapshot("main", stage.forge.bare), PRODUCTION)
    if found is None:
        raise CheckFailed("Nothing is live in production.")
    return found


def _is_answered(story: Story) -> bool:
    return story.load is not None and story.load.answering() == _live(story.stage).origin.bundle


def _until(story: Story, holds: Callable[[], bool], what: str) -> None:
    began = time.monotonic()
    while not holds():
        for agent in story.stage.agents.values():
            if agent.error:
                raise CheckFailed(f"{agent.environment} is not rolled out: {agent.error}")
        if time.monotonic() - began > story.stage.timeout:
            raise CheckFailed(f"It takes too long until {what}.")
        time.sleep(0.1)


def _must(run: Run, workflow: str) -> None:
    """Raises CheckFailed with what a job said last, where one failed."""
    for job, how in run.jobs.items():
        if how == "failure":
            said = re.findall(r"slipway:\S* (.+)", run.log[job]) or run.log[job].strip().splitlines()
            raise CheckFailed(f"{workflow} failed in its job {job}: {said[-1]}")
