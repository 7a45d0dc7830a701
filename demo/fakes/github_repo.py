"""A repository on the fake GitHub: a bare `origin`, pull requests, and the workflow runs that events start.

act runs the repository's own workflow files, with the fakes in actions/ instead of the real actions. Runs wait in a
queue. `run` executes one run. `settle` executes all queued runs, and all runs that these start.
"""

import itertools
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pygit2

from demo import processes
from demo.fakes.github_actions_api import parse, triggers
from demo.fakes.github_permissions import PUSH, needless, of_actions
from demo.fakes.github_server import GitHub
from demo.fakes.github_state import Token
from demo.fakes.workflow_events import Event, render, starts
from demo.fakes.workflow_run import OnStep, Run, Surroundings, act, job_tokens, prepared, secret_name
from slipway.integrations import process
from slipway.integrations.git import snapshot

REPOSITORY = "team/houses"
WORKFLOWS = ".github/workflows"
START = datetime.fromisoformat("2026-11-24T05:31:00+00:00")
MERGER = ("-c", "user.name=GitHub", "-c", "user.email=noreply@localhost")
GITHUB = Token("github", "User")
"""The actor of scheduled runs."""
CHECKS, REQUIRED = "pull-request.yml", "pass"
"""The workflow that checks pull requests, and the job in it that the ruleset requires."""
APP_TOKEN = "token-of-the-app"  # noqa: S105 (only the fake takes it)
APP = Token("slipway[bot]", "Bot", {"contents": "write", "pull-requests": "write"})
STATUS = {"A": "added", "M": "modified", "D": "removed"}

PRE_RECEIVE = """#!/bin/sh
# git passes the header with the token on to a local remote, as a variable.
token=$(printf %s "${GIT_CONFIG_VALUE_0##* }" | base64 --decode | cut --delimiter=: --fields=2)
[ -n "$token" ] || exit 0
if grep --quiet --line-regexp --fixed-strings "$token" readers; then
  echo "Permission to the repository denied to github-actions[bot]." >&2
  exit 1
fi
echo "$token" >> pushes
"""
"""A hook that refuses a push with a workflow's token that lacks `contents: write`, and records all other pushes."""


@dataclass(frozen=True)
class PullRequest:
    """A pull request at one of its commits, `head`.

    `merge` is the commit that merges `head` into `main`, which GitHub creates and which runs check out. A pull
    request with a conflict has no such commit (None).
    """

    number: int
    head: str
    merge: str | None
    branch: str
    source: str
    title: str


@dataclass
class GitHubRepo:
    """The repository REPOSITORY in `folder`, cloned from the repository `start`.

    `github` is the API of the fake GitHub.
    """

    folder: Path
    start: Path
    github: GitHub
    on_step: OnStep = lambda *_: None
    settings: dict[str, str] = field(default_factory=dict)
    """Additional environment variables for every job."""
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    approves_forks: bool = False
    """If true, checks of pull requests from forks wait for approval, as for first-time contributors."""
    runs: list[Run] = field(default_factory=list)
    pulls: dict[int, PullRequest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bare = self.folder / "origin.git"
        self.artifacts = self.folder / "artifacts"
        self.artifacts.mkdir()
        self._time = START
        self._identities = itertools.count(1)
        self._copies = itertools.count(1)
        self._changed = threading.Lock()
        process.run("git", "clone", "--quiet", "--bare", str(self.start), str(self.bare))
        self.git("repack", "-adq")  # each job fetches from this repository, and packing halves the time
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")
        (self.bare / "hooks/pre-receive").write_text(PRE_RECEIVE)
        (self.bare / "hooks/pre-receive").chmod(0o755)
        self.github.state.host = self
        self.github.state.workflows = self.workflows("main")

    def git(self, *command: str) -> str:
        """Run git in the bare repository."""
        return process.run("git", *command, at=self.bare)

    def copy(self, name: str) -> Path:
        """Make a clone with `main` checked out."""
        process.run("git", "clone", "--quiet", "--shared", str(self.bare), str(self.folder / name))
        return self.folder / name

    def workflows(self, commit: str) -> dict[str, str]:
        """Read the workflow files of a commit: file name → text."""
        now = snapshot(commit, self.bare)
        folder = now.commit.tree[WORKFLOWS]
        names = [str(each.name) for each in folder] if isinstance(folder, pygit2.Tree) else []
        return {name: (now.read(f"{WORKFLOWS}/{name}") or b"").decode() for name in names}

    def install_app(self) -> None:
        """Install a GitHub App and configure it.

        The App's actions start workflows, unlike actions with a workflow's own token.
        """
        self.variables["SLIPWAY_APP_ID"], self.secrets["SLIPWAY_APP_KEY"] = "1", "the key of the App"
        self.settings["FAKE_APP_TOKEN"] = APP_TOKEN
        self.github.state.tokens[APP_TOKEN] = APP

    # Actions of people.

    def push(
        self,
        work: Path,
        number: int,
        branch: str,
        source: str = REPOSITORY,
        title: str = "",
        login: str = "ada",
        labels: Sequence[str] = (),
        labels_first: bool = False,
    ) -> PullRequest:
        """Open a pull request for the last commit of a clone, or push that commit to the open pull request.

        Each label given at opening is a separate event, and GitHub sends these events in any order.
        """
        head = process.run("git", "rev-parse", "HEAD", at=work)
        places = [f"refs/pull/{number}/head", *([f"refs/heads/{branch}"] if source == REPOSITORY else [])]
        process.run("git", "push", "--quiet", "--force", "origin", *(f"HEAD:{each}" for each in places), at=work)
        opened = str(number) not in self.github.state.pulls
        told = {"branch": branch, "title": title, "login": login, "kind": "User", "from": source}
        self.github.state.pulls[str(number)] = {**self.github.state.pulls.get(str(number), told), "head": head}
        token, pull = Token(login, "User"), self._known(number)
        events: list[Callable[[], None]] = [
            lambda: self._pull_request_event("opened" if opened else "synchronize", pull, token),
            *(lambda name=name: self.label(pull, name, login) for name in labels),
        ]
        for send in reversed(events) if labels_first else events:
            send()
        return pull

    def label(self, pull: PullRequest, name: str, login: str, event: str = "labeled") -> None:
        """Add a label to a pull request, or remove it if `event` is `unlabeled`."""
        state, at = self.github.state, self.now()
        labels = [each for each in state.pulls[str(pull.number)].get("labels", []) if each != name]
        state.pulls[str(pull.number)]["labels"] = [*labels, name] if event == "labeled" else labels
        state.label_events.append({"pull": pull.number, "event": event, "label": name, "login": login, "at": at})
        self._pull_request_event(event, self.pulls[pull.number], Token(login, "User"), at, label={"name": name})

    def queue(self, pull: PullRequest, base: str) -> Run:
        """Put a pull request into the merge queue. The commit `base` contains the pull requests before it."""
        branch = f"refs/heads/gh-readonly-queue/main/pr-{pull.number}-{base}"
        self.git("update-ref", branch, pull.head)
        payload = {"action": "checks_requested"}
        payload |= {"merge_group": {"head_sha": pull.head, "head_ref": branch, "base_sha": base}}  # type: ignore[dict-item]
        (run,) = self._send(Event("merge_group", self._payload(payload), GITHUB, pull.head, branch), pull)
        return run

    def start_by_hand(self, workflow: str, login: str = "ada", ref: str = "main", **inputs: str) -> Run:
        """Start a workflow as `gh workflow run` does."""
        return self._dispatched(workflow, ref, inputs, Token(login, "User"))

    def start_by_schedule(self, workflow: str) -> Run:
        """Start a workflow as its schedule does. Unlike other events, this event has no repository in its payload.

        Raises LookupError if the workflow has no schedule or is disabled.
        """
        text = self.workflows("main")[workflow]
        if "schedule" not in triggers(text) or workflow in self.github.state.disabled:
            raise LookupError(f"GitHub starts no schedule of {workflow}.")
        cron = triggers(text)["schedule"][0]["cron"]
        event = Event("schedule", {"schedule": cron}, GITHUB, self.git("rev-parse", "main"), "refs/heads/main")
        return self._queue(workflow, text, event, None)

    def approve(self, run: Run) -> None:
        """Approve a run that waits for a person ("Approve workflows to run")."""
        run.status, run.outcome = "queued", ""
        self._record(run)

    def merge_by_hand(self, pull: PullRequest, login: str = "ada") -> str:
        """Merge a pull request as one commit, and return the commit."""
        commit = self.merge(pull.number, f"{pull.title or pull.branch} (#{pull.number})", Token(login, "User"))
        if commit is None:
            raise ValueError(f"Pull request {pull.number} has a conflict.")
        self.github.state.pulls[str(pull.number)]["state"] = "closed"
        return commit

    def push_to_main(self, login: str = "ada") -> Run | None:
        """Send the event for a push to `main` that changed every file.

        Return the run of Ship that it starts, if any.
        """
        commit = self.git("rev-parse", "main")
        paths = self.git("ls-tree", "-r", "--name-only", "main").splitlines()[::-1]
        return next(iter(self._push_event(commit, Token(login, "User"), paths)), None)

    # Calls of the API.

    def branch_head(self, branch: str) -> str | None:
        """Return the commit of a branch, or None if the branch does not exist or the name is not valid."""
        try:
            self.git("check-ref-format", f"refs/heads/{branch}")
            return self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
        except process.ProcessFailed:
            return None

    def on_pull_request(self, number: int, token: Token) -> None:
        """Add a pull request that the API has opened."""
        head = self.github.state.pulls[str(number)]["head"]
        self.git("update-ref", f"refs/pull/{number}/head", head)
        self._pull_request_event("opened", self._known(number), token)

    def on_dispatch(self, workflow: str, ref: str, inputs: Mapping[str, str], token: Token) -> int:
        """Queue the run of a workflow that was started by the API."""
        return self._dispatched(workflow, ref, inputs, token).identity

    def on_repository_dispatch(self, kind: str, token: Token) -> None:
        """Send a repository_dispatch event."""
        commit = self.git("rev-parse", "main")
        payload = self._payload({"action": kind, "client_payload": {}})
        self._send(Event("repository_dispatch", payload, token, commit, "refs/heads/main"))

    def merge(self, number: int, message: str, token: Token) -> str | None:
        """Merge a pull request as one commit on `main`. Return the commit, or None if git finds a conflict."""
        before, pull = self.git("rev-parse", "main"), self.pulls[number]
        tree = self._merged_tree(before, pull.head)
        if tree is None:
            return None
        commit = self.git(*MERGER, "commit-tree", tree, "-p", before, "-m", message)
        self.git("update-ref", "refs/heads/main", commit, before)
        self.github.state.pulls[str(number)]["merged"] = commit
        self.github.state.workflows = self.workflows("main")
        self._push_event(commit, token, self.git("diff", "--name-only", before, commit).splitlines())
        return commit

    def cancel_run(self, identity: int) -> None:
        """Cancel a run."""
        self.cancel(self._find(identity))

    def rerun(self, identity: int) -> None:
        """Queue a run again, with its original event."""
        run = self._find(identity)
        run.attempt, run.outcome, run.jobs, run.steps, run.log = run.attempt + 1, "", {}, {}, {}
        self._enqueue(run)

    def _find(self, identity: int) -> Run:
        return next(each for each in self.runs if each.identity == identity)

    # Runs.

    def take(self, workflow: str, pull: PullRequest | None = None) -> Run:
        """Return the queued run of a workflow for a pull request.

        Raises LookupError if GitHub has not started such a run.
        """
        for run in self.queued:
            if run.workflow == workflow and (pull is None or run.pull == pull.number):
                return run
        raise LookupError(f"GitHub has started no run of {workflow}.")

    @property
    def queued(self) -> list[Run]:
        """The queued runs that can begin, because no other run of their concurrency group is in progress."""
        busy = {each.group for each in self.runs if each.status == "in_progress"}
        return [each for each in self.runs if each.status == "queued" and each.group not in busy]

    def run(self, run: Run) -> Run:
        """Run a queued run to its end."""
        text = self.workflows(run.event.commit)[run.workflow]
        tokens = job_tokens(run, text)
        run.status = "in_progress"
        self._record(run)
        names = {f"{each}-of-run-{run.identity}-{run.attempt}": token for each, token in tokens.items()}
        self.github.state.tokens |= names
        with (self.bare / "readers").open("a") as readers:
            readers.writelines(f"{each}\n" for each, token in names.items() if not token.may_any(PUSH))
        try:
            act(run, self._surroundings(run, text, dict(zip(tokens, names, strict=True))))
        finally:
            run.needless = self._needless(run, parse(text)["jobs"], dict(zip(tokens, names, strict=True)))
            for each in names:
                del self.github.state.tokens[each]
            run.status, run.program = "completed", None
            self._record(run)
        self._workflow_run_event(run)
        return run

    def _needless(
        self, run: Run, jobs: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
    ) -> dict[str, list[str]]:
        """Return the permissions that no call, push or action of a job needed."""
        pushes = self.bare / "pushes"
        pushed = pushes.read_text().splitlines() if pushes.exists() else []
        found = {}
        for job in run.jobs:
            used = {*self.github.state.used.get(names[job], ()), *([PUSH] if names[job] in pushed else [])}
            found[job] = needless(jobs[job].get("permissions", {}), [*used, *of_actions(jobs[job])])
        return {job: each for job, each in found.items() if each}

    def settle(self) -> list[Run]:
        """Run all queued runs, and all runs that these start. Return them in the order in which they ended."""
        ended: list[Run] = []
        active: set[Future[Run]] = set()
        with ThreadPoolExecutor(8) as threads:
            while active or self.queued:
                for run in self.queued:
                    run.status = "in_progress"
                    active.add(threads.submit(self.run, run))
                done, active = wait(active, timeout=0.2, return_when=FIRST_COMPLETED)
                ended += [each.result() for each in done]
        return ended

    def cancel(self, run: Run) -> None:
        """Cancel a run. Its check runs stay on the commit."""
        run.outcome = "cancelled"
        if run.program:
            processes.end(run.program.pid)
        else:
            run.status = "completed"
        self._record(run)

    def required_checks(self, commit: str) -> list[str]:
        """Return the conclusion of the required check in each run on a commit.

        Runs that were started by hand are left out. All other runs are included, even cancelled ones.
        """
        return [
            "cancelled" if each.outcome == "cancelled" else each.jobs.get(REQUIRED, each.outcome or "pending")
            for each in self.runs
            if each.workflow == CHECKS and each.head == commit and each.event.name == "pull_request"
        ]

    def may_merge(self, pull: PullRequest) -> bool:
        """Return whether the required check of a pull request has succeeded in all runs in `required_checks`."""
        return set(self.required_checks(pull.head)) == {"success"}

    def artifact(self, run: Run) -> Path:
        """Return the file of a run's report."""
        return self.artifacts / str(run.identity) / "report.tar"

    def reported(self, run: Run, name: str) -> bytes:
        """Read a file of a run's report."""
        with tarfile.open(self.artifact(run)) as packed:
            file = packed.extractfile(f"./{name}")
            return file.read() if file else b""

    # Events.

    def _payload(self, more: Mapping[str, Any]) -> dict[str, Any]:
        visibility = "private" if self.github.state.private else "public"
        return {"repository": {"full_name": REPOSITORY, "default_branch": "main", "visibility": visibility}, **more}

    def _pull_request_event(
        self, action: str, pull: PullRequest, token: Token, at: str | None = None, **more: Any
    ) -> None:
        if pull.merge is None:
            return  # GitHub starts no run for a pull request with a conflict
        state = self.github.state.pulls[str(pull.number)]
        described = {
            "number": pull.number,
            "title": pull.title,
            "body": pull.title,
            "updated_at": at or self.now(),
            "head": {"sha": pull.head, "ref": pull.branch, "repo": {"full_name": pull.source}},
            "base": {"sha": self.git("rev-parse", "main"), "ref": "main", "repo": {"full_name": REPOSITORY}},
            "labels": [{"name": each} for each in state.get("labels", [])],
        }
        told = {"action": action, "number": pull.number, "pull_request": described, "sender": {"login": token.login}}
        ref = f"refs/pull/{pull.number}/merge"
        self._send(Event("pull_request", self._payload(told | more), token, pull.merge, ref), pull)

    def _push_event(self, commit: str, token: Token, paths: Sequence[str]) -> list[Run]:
        payload = self._payload({"ref": "refs/heads/main", "after": commit})
        return self._send(Event("push", payload, token, commit, "refs/heads/main", paths))

    def _workflow_run_event(self, run: Run) -> None:
        """Send the event at the end of a run, except for runs that a workflow's own token has started."""
        if run.event.token.starts_workflows and run.event.name != "workflow_run":
            payload = self._payload({"action": "completed", "workflow_run": run.document()})
            commit = self.git("rev-parse", "main")
            pull = self.pulls.get(run.pull or 0)
            self._send(Event("workflow_run", payload, run.event.token, commit, "refs/heads/main"), pull)

    def _dispatched(self, workflow: str, ref: str, inputs: Mapping[str, str], token: Token) -> Run:
        commit = self.git("rev-parse", f"refs/heads/{ref}")
        payload = self._payload({"inputs": dict(inputs), "ref": f"refs/heads/{ref}"})
        event = Event("workflow_dispatch", payload, token, commit, f"refs/heads/{ref}")
        pull = next((each for each in self.pulls.values() if each.branch == ref), None)
        return self._queue(workflow, self.workflows(commit)[workflow], event, pull)

    def _send(self, event: Event, pull: PullRequest | None = None) -> list[Run]:
        """Queue a run of each workflow that an event starts."""
        if not event.token.starts_workflows and event.name not in ("pull_request", "repository_dispatch"):
            return []
        files = self.workflows(event.commit)
        enabled = {name: text for name, text in files.items() if name not in self.github.state.disabled}
        return [self._queue(name, text, event, pull) for name, text in enabled.items() if starts(text, event)]

    def _queue(self, workflow: str, text: str, event: Event, pull: PullRequest | None) -> Run:
        of_pull = pull is not None and event.name in ("pull_request", "merge_group", "workflow_dispatch")
        head = pull.head if pull and of_pull else event.commit
        branch = pull.branch if pull and of_pull else event.ref.removeprefix("refs/heads/")
        source, number = (pull.source if pull and of_pull else REPOSITORY), (pull.number if pull else None)
        identity, name = next(self._identities), parse(text)["name"]
        run = Run(identity, workflow, name, event, branch, head, source, self.now(), number)
        self.runs.append(run)
        waits = not event.token.starts_workflows or (self.approves_forks and run.is_of_a_fork)
        if event.name == "pull_request" and waits:
            run.status, run.outcome = "completed", "action_required"
            self._record(run)
            self._workflow_run_event(run)
        else:
            self._enqueue(run)
        return run

    def _enqueue(self, run: Run) -> None:
        """Queue a run.

        A concurrency group has at most one active run and one waiting run. A new run cancels the older waiting run.
        """
        concurrency = parse(self.workflows(run.event.commit)[run.workflow]).get("concurrency", {})
        github = {"event": run.event.payload, "event_name": run.event.name, "ref": run.event.ref}
        context = {"github": github | {"repository": REPOSITORY}, "inputs": run.event.payload.get("inputs") or {}}
        run.group = render(concurrency.get("group", f"run-{run.identity}"), context)
        cancels = render(concurrency.get("cancel-in-progress", False), context) == "true"
        others = [
            each
            for each in self.runs
            if each is not run and each.group == run.group and each.status in ("queued", "in_progress")
        ]
        for each in others if cancels else others[1:]:
            self.cancel(each)
        run.status = "queued"
        self._record(run)

    def _record(self, run: Run) -> None:
        with self._changed:
            self.github.state.runs[run.identity] = run.document()

    def _known(self, number: int) -> PullRequest:
        """Merge the current head of a pull request for its checks, and record the files that it changes."""
        told = self.github.state.pulls[str(number)]
        main, head = self.git("rev-parse", "main"), told["head"]
        tree = self._merged_tree(main, head)
        merge = tree and self.git(*MERGER, "commit-tree", tree, "-p", main, "-p", head, "-m", "Merge")
        if merge:
            self.git("update-ref", f"refs/pull/{number}/merge", merge)
        base = self.git("merge-base", main, head)
        changed = [line.split("\t") for line in self.git("diff", "--name-status", base, head).splitlines()]
        told["files"] = [{"status": STATUS.get(kind[0], "renamed"), "filename": name} for kind, *_, name in changed]
        data = snapshot(head, self.bare).read("data.dvc")
        self.github.state.contents[f"{head}:data.dvc"] = (data or b"").decode()
        self.pulls[number] = PullRequest(number, head, merge, told["branch"], told["from"], told["title"])
        return self.pulls[number]

    def _merged_tree(self, main: str, head: str) -> str | None:
        repository = pygit2.Repository(str(self.bare))
        index = repository.merge_commits(main, head)
        return None if index.conflicts else str(index.write_tree(repository))

    def now(self) -> str:
        """Return the time of a new event. Each event has a different time."""
        self._time += timedelta(minutes=1)
        return self._time.isoformat().replace("+00:00", "Z")

    def _surroundings(self, run: Run, text: str, tokens: Mapping[str, str]) -> Surroundings:
        folder = self.folder / f"run-{run.identity}"
        shutil.rmtree(folder, ignore_errors=True)  # may exist from an earlier attempt
        clone = self.copy(f"run-{run.identity}/workflows")
        process.run("git", "fetch", "--quiet", "origin", run.event.commit, at=clone)
        process.run("git", "checkout", "--quiet", "--detach", run.event.commit, at=clone)
        secrets = {} if run.is_of_a_fork else self.secrets
        (clone / ".github/workflows" / run.workflow).write_text(prepared(text, run.event, secrets), encoding="utf-8")
        given = secrets | {secret_name(job): token for job, token in tokens.items()}
        return Surroundings(folder, given, self.variables, self._environment(run), self.on_step)

    def _environment(self, run: Run) -> dict[str, str]:
        """Return the environment variables of the jobs."""
        server = {key: value for key, value in self.github.variables().items() if key != "GITHUB_TOKEN"}
        return {
            "FAKE_ORIGIN": str(self.bare),
            "FAKE_ARTIFACTS": str(self.artifacts),
            "FAKE_VENV": sys.prefix,
            "GITHUB_RUN_ID": str(run.identity),
            "SHA_REF": run.event.commit,  # act sets GITHUB_SHA to it
            "PYTHONPATH": "src",  # the checked-out code, rather than the code installed in FAKE_VENV
            "SLIPWAY_REPORTS_REMOTE": f"file://{self.bare}",
            **server,
            **self.settings,
        }
