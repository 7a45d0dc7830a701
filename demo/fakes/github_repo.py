"""A forge on this machine: a bare `origin` with pull requests, on which act runs the repository's own workflow files.

Act gives each job an empty folder. The pinned actions are those of actions/ beside this file, which do what the real
ones do, with folders in place of GitHub's services.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import processes
from demo.fakes.github_server import GitHub
from slipway.integrations import process

ACTIONS = Path(__file__).parent / "actions"
TEAM = "team/houses"
Told = Callable[[str, str], None]
WHEN = "2026-11-24T05:31:00Z"
MERGER = ("-c", "user.name=GitHub", "-c", "user.email=noreply@localhost")


@dataclass(frozen=True)
class PullRequest:
    """`merge` is the commit that GitHub makes to try it, and which a run checks out."""

    number: int
    head: str
    merge: str
    branch: str
    source: str
    title: str


@dataclass
class Run:
    """What act did. `jobs` and `steps` tell how each ended: success or failure; one that was skipped is not there."""

    identity: int
    event: str
    pull: PullRequest | None
    jobs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, dict[str, str]] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)

    def ran(self, job: str) -> list[str]:
        """The commands and actions of a job that were run."""
        return [name.split("@")[0] for name in self.steps[job] if not name.endswith(" job")]

    @property
    def conclusion(self) -> str:
        return "failure" if "failure" in self.jobs.values() else "success"

    def take_in(self, line: str) -> str | None:
        """Learn from a line that act printed; returns the name of a step which begins, with its job's."""
        try:
            told = json.loads(line)
        except ValueError:
            return None
        job = told.get("jobID")
        if job is None:
            return None
        main = told.get("stage", "Main") == "Main"
        if "jobResult" in told:
            self.jobs[job] = told["jobResult"]
        if "stepResult" in told and main:
            self.steps.setdefault(job, {})[told["step"]] = told["stepResult"]
        self.log[job] = self.log.get(job, "") + told["msg"] + ("" if told["msg"].endswith("\n") else "\n")
        begins = main and told["msg"].startswith("⭐ Run Main") and len(told.get("stepID", ())) == 1
        return f"{job}: {told['step'].splitlines()[0].split('@')[0]}" if begins else None


class Forge:
    """Repository TEAM, in `folder`, which begins with what `start` has; `github` is its API.

    `told` hears of each step of a workflow as it begins, and with an empty one of its end. `settings` are more
    variables of every job.
    """

    def __init__(
        self,
        folder: Path,
        start: Path,
        github: GitHub,
        told: Told = lambda *_: None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.github = github
        self.bare = folder / "origin.git"
        self.artifacts = folder / "artifacts"
        self.artifacts.mkdir()
        self._identities = itertools.count(1)
        self.secrets: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.told = told
        self.settings = settings
        process.run("git", "clone", "--quiet", "--bare", str(start), str(self.bare))
        self.git("repack", "-adq")  # each job fetches from it, which then takes half as long
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")

    def git(self, *command: str) -> str:
        return process.run("git", *command, at=self.bare)

    def copy(self, name: str) -> Path:
        """A clone of its own, with `main` checked out."""
        process.run("git", "clone", "--quiet", str(self.bare), str(self.folder / name))
        return self.folder / name

    def push(self, work: Path, number: int, branch: str, source: str = TEAM, title: str = "") -> PullRequest:
        """Open a pull request of the last commit of a clone, or push that to the one which is open."""
        head = process.run("git", "rev-parse", "HEAD", at=work)
        places = [f"refs/pull/{number}/head", *([f"refs/heads/{branch}"] if source == TEAM else [])]
        process.run("git", "push", "--quiet", "--force", "origin", *(f"HEAD:{each}" for each in places), at=work)
        merge = self.git(*MERGER, "commit-tree", f"{head}^{{tree}}", "-p", "main", "-p", head, "-m", "Merge")
        self.git("update-ref", f"refs/pull/{number}/merge", merge)
        self.github.state.pulls[str(number)] = {"head": head, "from": source}
        return PullRequest(number, head, merge, branch, source, title)

    def check(self, pull: PullRequest, action: str = "synchronize", sender: str = "ada", **parts: Any) -> Run:
        """Run pull-request.yml on a pull request, as it has the file."""
        event = {
            "action": action,
            "number": pull.number,
            "pull_request": {
                "number": pull.number,
                "title": pull.title,
                "body": pull.title,
                "updated_at": WHEN,
                "head": {"sha": pull.head, "ref": pull.branch, "repo": {"full_name": pull.source}},
                "base": {"sha": self.git("rev-parse", "main"), "ref": "main", "repo": {"full_name": TEAM}},
            },
            "sender": {"login": sender},
            **parts,
        }
        return self._act("pull-request.yml", "pull_request", pull, pull.merge, event)

    def ask(self, pull: PullRequest) -> Run:
        """Run it as `gh workflow run --ref` of the pull request's branch would."""
        return self._act(
            "pull-request.yml", "workflow_dispatch", pull, pull.head, {"inputs": {"pull_request": str(pull.number)}}
        )

    def queue(self, pull: PullRequest, base: str) -> Run:
        """Run it as the merge queue would, on the pull request behind what the commit `base` has of others."""
        branch = f"refs/heads/gh-readonly-queue/main/pr-{pull.number}-{base}"
        self.git("update-ref", branch, pull.head)
        event = {"merge_group": {"head_sha": pull.head, "head_ref": branch, "base_sha": base}}
        return self._act("pull-request.yml", "merge_group", pull, pull.head, event)

    def look_for_data(self) -> Run:
        """Run new-data.yml, as its schedule would."""
        return self._act("new-data.yml", "schedule", None, self.git("rev-parse", "main"), {})

    def monitor(self) -> Run:
        """Run monitor.yml, as its schedule would."""
        return self._act("monitor.yml", "schedule", None, self.git("rev-parse", "main"), {})

    def opened(self, number: int) -> PullRequest:
        """The pull request that a workflow has opened, as GitHub knows it then."""
        told = self.github.state.pulls[str(number)]
        work = self.copy(f"opened-{number}")
        process.run("git", "checkout", "--quiet", told["branch"], at=work)
        pull = self.push(work, number, told["branch"], title=told["title"])
        changed = self.git("diff", "--name-status", "main", pull.head).splitlines()
        names = {"A": "added", "M": "modified"}
        files = [{"status": names[line[0]], "filename": line.split("\t")[1]} for line in changed]
        self.github.state.pulls[str(number)] = told | {"head": pull.head, "files": files}
        self.github.state.contents[f"{pull.head}:data.dvc"] = self.git("show", f"{pull.head}:data.dvc") + "\n"
        return pull

    def merge(self, pull: PullRequest) -> str:
        """Merge it as one commit on `main`, as GitHub squashes; returns that."""
        words = f"{pull.title or pull.branch} (#{pull.number})"
        commit = self.git(*MERGER, "commit-tree", f"{pull.merge}^{{tree}}", "-p", "main", "-m", words)
        self.git("update-ref", "refs/heads/main", commit)
        self.github.state.pulls[str(pull.number)] |= {"state": "closed", "merged": commit}
        return commit

    def ship(self) -> Run:
        """Run ship.yml, as a push to `main` would."""
        commit = self.git("rev-parse", "main")
        return self._act("ship.yml", "push", None, commit, {"ref": "refs/heads/main", "after": commit})

    def roll_back(self, environment: str, to: str = "") -> Run:
        """Run rollback.yml by hand."""
        inputs = {"environment": environment, "to": to}
        commit = self.git("rev-parse", "main")
        return self._act("rollback.yml", "workflow_dispatch", None, commit, {"inputs": inputs})

    def artifact(self, run: Run) -> Path:
        """Where the report of a run is kept."""
        return self.artifacts / str(run.identity) / "report.tar"

    def reported(self, run: Run, name: str) -> bytes:
        """A file of a run's report."""
        with tarfile.open(self.artifact(run)) as packed:
            file = packed.extractfile(f"./{name}")
            return file.read() if file else b""

    def comment(self, run: Run) -> Run:
        """Run comment.yml, as `main` has it, on a run of a pull request that has ended."""
        pull = run.pull
        if pull is None:
            raise ValueError("A run without a pull request has nothing to comment on.")
        event = {
            "action": "completed",
            "workflow_run": {
                "id": run.identity,
                "name": "Pull request",
                "event": run.event,
                "conclusion": run.conclusion,
                "head_sha": pull.head,
                "head_branch": pull.branch,
                "head_repository": {"full_name": pull.source},
                "display_title": pull.title,
            },
        }
        return self._act("comment.yml", "workflow_run", pull, self.git("rev-parse", "main"), event)

    def _act(self, workflow: str, name: str, pull: PullRequest | None, commit: str, event: dict[str, Any]) -> Run:
        run = Run(next(self._identities), name, pull)
        folder = self.folder / f"run-{run.identity}"
        there = self.copy(f"run-{run.identity}/workflows")
        process.run("git", "fetch", "--quiet", "origin", commit, at=there)
        process.run("git", "checkout", "--quiet", "--detach", commit, at=there)
        repository = {"full_name": TEAM, "default_branch": "main", "visibility": "public"}
        (folder / "event.json").write_text(json.dumps({"repository": repository} | event))
        command = [
            *(str(Path(sys.executable).parent / "act"), name, "--json", "--directory", str(there)),
            *("--workflows", f".github/workflows/{workflow}", "--eventpath", str(folder / "event.json")),
            *("--platform", "ubuntu-24.04=-self-hosted", "--no-skip-checkout", "--no-cache-server", "--pull=false"),
            *("--action-cache-path", str(folder / "jobs"), "--secret", f"GITHUB_TOKEN={self.github.state.token}"),
            *(f"--secret={key}={value}" for key, value in self.secrets.items()),
            *(f"--var={key}={value}" for key, value in self.variables.items()),
            *(f"--env={key}={value}" for key, value in self._variables(run, commit).items()),
            *(f"--local-repository={pin}={ACTIONS / pin.split('/')[1].split('@')[0]}" for pin in pins(there)),
        ]
        with (
            (folder / "act.jsonl").open("w", encoding="utf-8") as log,
            processes.started(command, folder, _environment(), stdout=subprocess.PIPE, stderr=log) as act,
        ):
            for line in act.stdout or ():
                log.write(line)
                if step := run.take_in(line):
                    self.told(workflow, step)
        self.told(workflow, "")
        return run

    def _variables(self, run: Run, commit: str) -> dict[str, str]:
        """What jobs find in their environment."""
        return {
            "FORGE_ORIGIN": str(self.bare),
            "FORGE_ARTIFACTS": str(self.artifacts),
            "FORGE_VENV": sys.prefix,
            "GITHUB_RUN_ID": str(run.identity),
            "SHA_REF": commit,  # as act calls it
            "PYTHONPATH": "src",  # what is checked out, rather than what is installed in FORGE_VENV
            "SLIPWAY_REPORTS_REMOTE": f"file://{self.bare}",
            **{key: value for key, value in self.github.variables().items() if key != "GITHUB_TOKEN"},
            **self.settings,
        }


def pins(repository: Path) -> set[str]:
    """Third-party actions, each with its commit, as the workflow files of a repository name them."""
    files = (path.read_text(encoding="utf-8") for path in sorted((repository / ".github").rglob("*.yml")))
    return {pin for text in files for pin in re.findall(r"uses: ([\w.-]+/[\w.-]+@[0-9a-f]{40})", text)}


def _environment() -> dict[str, str]:
    """Without that in which a run of GitHub's, or of tests, would show in the jobs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "RUNNER_", "PYTEST_"))}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull}
