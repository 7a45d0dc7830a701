"""A forge for the tests: a bare `origin` with pull requests, on which act runs the real workflow files.

Act gives each job an empty folder on this machine. The pinned actions are those of actions/ beside this file, which do
what the real ones do, with folders in place of GitHub's services.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import ROOT, Repository
from review.github_server import GitHub
from slipway.review.report import Report

ACTIONS = Path(__file__).parent / "actions"
WORKFLOWS = ROOT / ".github"
TEAM = "team/houses"
WHEN = "2026-11-24T05:31:00Z"


def pins() -> set[str]:
    """Third-party actions, each with its commit, as the workflow files name them."""
    files = (path.read_text() for path in sorted(WORKFLOWS.rglob("*.yml")))
    return {pin for text in files for pin in re.findall(r"uses: ([\w.-]+/[\w.-]+@[0-9a-f]{40})", text)}


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


class Forge:
    """Repository TEAM, in `folder`; `github` is its API."""

    def __init__(self, folder: Path, start: Repository, github: GitHub) -> None:
        self.folder = folder
        self.github = github
        self.bare = folder / "origin.git"
        self.artifacts = folder / "artifacts"
        self.artifacts.mkdir()
        self.runs = 0
        self.secrets: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        start.must("git", "clone", "--quiet", "--bare", str(start.path), str(self.bare))
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")

    def git(self, *command: str) -> str:
        return Repository(self.bare).must("git", *command).strip()

    def clone(self, name: str) -> Repository:
        return Repository(self.bare).clone(self.folder / name)

    def propose(self, work: Repository, number: int, branch: str, source: str = TEAM, title: str = "") -> PullRequest:
        """Open a pull request of the last commit of a clone, or push that to the one which is open."""
        head = work.must("git", "rev-parse", "HEAD").strip()
        work.must("git", "push", "--quiet", "--force", "origin", f"HEAD:refs/pull/{number}/head")
        if source == TEAM:
            work.must("git", "push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
        author = ("-c", "user.name=GitHub", "-c", "user.email=noreply@localhost")
        merge = self.git(*author, "commit-tree", f"{head}^{{tree}}", "-p", "main", "-p", head, "-m", "Merge")
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

    def look_for_data(self, **settings: str) -> Run:
        """Run new-data.yml, as its schedule would."""
        return self._act("new-data.yml", "schedule", None, self.git("rev-parse", "main"), {}, settings)

    def monitor(self, **settings: str) -> Run:
        """Run monitor.yml, as its schedule would."""
        return self._act("monitor.yml", "schedule", None, self.git("rev-parse", "main"), {}, settings)

    def opened(self, number: int) -> PullRequest:
        """The pull request that a workflow has opened, as GitHub knows it then."""
        told = self.github.state.pulls[str(number)]
        work = self.clone(f"opened-{number}")
        work.must("git", "checkout", "--quiet", told["branch"])
        pull = self.propose(work, number, told["branch"], title=told["title"])
        changed = self.git("diff", "--name-status", "main", pull.head).splitlines()
        names = {"A": "added", "M": "modified"}
        files = [{"status": names[line[0]], "filename": line.split("\t")[1]} for line in changed]
        self.github.state.pulls[str(number)] = told | {"head": pull.head, "files": files}
        self.github.state.contents[f"{pull.head}:data.dvc"] = self.git("show", f"{pull.head}:data.dvc") + "\n"
        return pull

    def merge(self, pull: PullRequest) -> str:
        """Merge it as one commit on `main`, as GitHub squashes; returns that."""
        author = ("-c", "user.name=GitHub", "-c", "user.email=noreply@localhost")
        words = f"{pull.title or pull.branch} (#{pull.number})"
        commit = self.git(*author, "commit-tree", f"{pull.merge}^{{tree}}", "-p", "main", "-m", words)
        self.git("update-ref", "refs/heads/main", commit)
        self.github.state.pulls[str(pull.number)] |= {"state": "closed", "merged": commit}
        return commit

    def ship(self, **settings: str) -> Run:
        """Run ship.yml, as a push to `main` would."""
        commit = self.git("rev-parse", "main")
        return self._act("ship.yml", "push", None, commit, {"ref": "refs/heads/main", "after": commit}, settings)

    def roll_back(self, environment: str, to: str = "", **settings: str) -> Run:
        """Run rollback.yml by hand."""
        inputs = {"environment": environment, "to": to}
        commit = self.git("rev-parse", "main")
        return self._act("rollback.yml", "workflow_dispatch", None, commit, {"inputs": inputs}, settings)

    def artifact(self, run: Run) -> Path:
        """Where the report of a run is kept."""
        return self.artifacts / str(run.identity) / "report.tar"

    def report(self, run: Run) -> Report:
        with tarfile.open(self.artifact(run)) as packed:
            file = packed.extractfile("./report.json")
            assert file
            return Report.model_validate_json(file.read())

    def comment(self, run: Run) -> Run:
        """Run comment.yml, as `main` has it, on a run that has ended."""
        pull = run.pull
        assert pull
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

    def _act(
        self,
        workflow: str,
        name: str,
        pull: PullRequest | None,
        commit: str,
        event: dict[str, Any],
        settings: dict[str, str] | None = None,
    ) -> Run:
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        there = self.clone(f"run-{self.runs}/workflows")
        there.must("git", "fetch", "--quiet", "origin", commit)
        there.must("git", "checkout", "--quiet", "--detach", commit)
        repository = {"full_name": TEAM, "default_branch": "main", "visibility": "public"}
        (folder / "event.json").write_text(json.dumps({"repository": repository} | event))
        variables = {
            "FORGE_ORIGIN": str(self.bare),
            "FORGE_ARTIFACTS": str(self.artifacts),
            "FORGE_VENV": sys.prefix,
            "GITHUB_RUN_ID": str(self.runs),
            "SHA_REF": commit,  # as act calls it
            "PYTHONPATH": "src",  # what is checked out, rather than what is installed in FORGE_VENV
            "SLIPWAY_REPORTS_REMOTE": f"file://{self.bare}",
            **{key: value for key, value in self.github.variables().items() if key != "GITHUB_TOKEN"},
            **(settings or {}),
        }
        command = [
            *(str(Path(sys.executable).parent / "act"), name, "--json", "--directory", str(there.path)),
            *("--workflows", f".github/workflows/{workflow}", "--eventpath", str(folder / "event.json")),
            *("--platform", "ubuntu-24.04=-self-hosted", "--no-skip-checkout", "--no-cache-server", "--pull=false"),
            *("--action-cache-path", str(folder / "jobs"), "--secret", f"GITHUB_TOKEN={self.github.state.token}"),
            *(f"--secret={key}={value}" for key, value in self.secrets.items()),
            *(f"--var={key}={value}" for key, value in self.variables.items()),
            *(f"--env={key}={value}" for key, value in variables.items()),
            *(f"--local-repository={pin}={ACTIONS / pin.split('/')[1].split('@')[0]}" for pin in pins()),
        ]
        done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
        (folder / "act.jsonl").write_text(done.stdout + done.stderr)
        return _read(Run(self.runs, name, pull), done.stdout + done.stderr)


def _environment() -> dict[str, str]:
    """Without that in which a run of GitHub's, or of the tests, would show in the jobs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "RUNNER_", "PYTEST_"))}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1"}


def _read(run: Run, printed: str) -> Run:
    for line in printed.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        job = told.get("jobID")
        if job is None:
            continue
        if "jobResult" in told:
            run.jobs[job] = told["jobResult"]
        if "stepResult" in told and told.get("stage", "Main") == "Main":
            run.steps.setdefault(job, {})[told["step"]] = told["stepResult"]
        run.log[job] = run.log.get(job, "") + told["msg"] + ("" if told["msg"].endswith("\n") else "\n")
    return run
