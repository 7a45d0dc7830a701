"""Run a workflow file with act, with the tokens, secrets and outputs that GitHub would give to its jobs."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from demo import processes
from demo.fakes.github_actions_api import parse
from demo.fakes.github_state import BOT, Token
from demo.fakes.workflow_events import Event

ACTIONS = Path(__file__).parent / "actions"
STEP = Path(__file__).parent / "step.sh"
OnStep = Callable[[str, str], None]
"""A function that is called with a workflow and its next step. At the end of the workflow, the step is empty."""


@dataclass
class Run:
    """A workflow run.

    `jobs` and `steps` contain the results: success or failure. Skipped jobs and steps are left out.
    """

    identity: int
    workflow: str
    """The name of the workflow's file."""
    name: str
    event: Event
    branch: str
    head: str
    source: str
    """The repository of `branch`."""
    created: str
    pull: int | None = None
    attempt: int = 1
    status: str = "requested"
    """One of requested, queued, in_progress and completed. A requested run is in no concurrency group yet, so it cannot
    begin.
    """
    outcome: str = ""
    """The conclusion if the jobs do not determine it: cancelled or action_required."""
    group: str = ""
    jobs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, dict[str, str]] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)
    needless: dict[str, list[str]] = field(default_factory=dict)
    """The permissions that a job had but did not need, by job. Jobs that needed all their permissions are left out."""
    program: "subprocess.Popen[str] | None" = None

    def ran(self, job: str) -> list[str]:
        """Return the commands and actions of a job that were run."""
        return [name.split("@")[0] for name in self.steps[job] if not name.endswith(" job")]

    @property
    def conclusion(self) -> str | None:
        """The conclusion of the run, or None if it has not ended."""
        if self.status != "completed":
            return None
        return self.outcome or ("failure" if "failure" in self.jobs.values() else "success")

    @property
    def is_of_a_fork(self) -> bool:
        """True for a pull request from a fork. Such a run has no secrets, and its tokens can only read."""
        return self.event.name == "pull_request" and self.source != self.event.payload["repository"]["full_name"]

    def document(self) -> dict[str, Any]:
        """Return the run in the format of the API and of the event `workflow_run`."""
        return {
            "id": self.identity,
            "name": self.name,
            "path": f".github/workflows/{self.workflow}",
            "event": self.event.name,
            "status": self.status,
            "conclusion": self.conclusion,
            "head_branch": self.branch,
            "head_sha": self.head,
            "head_repository": {"full_name": self.source},
            "actor": {"login": self.event.token.login},
            "run_attempt": self.attempt,
            "created_at": self.created,
        }

    def read(self, line: str) -> str | None:
        """Read a line from act's log. Return the step that begins with this line, if any."""
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
        self.log[job] = self.log.get(job, "") + told["msg"].rstrip() + "\n"
        begins = main and told["msg"].startswith("⭐ Run Main") and len(told.get("stepID", ())) == 1
        return f"{job}: {told['step'].splitlines()[0].split('@')[0]}" if begins else None


def job_tokens(run: Run, workflow: str) -> dict[str, Token]:
    """Return a token for each job, with the permissions that the job declares. For a fork, tokens can only read."""
    parsed = parse(workflow)
    found = {}
    for job, told in parsed["jobs"].items():
        permissions = told.get("permissions", parsed.get("permissions", {}))
        if run.is_of_a_fork:
            permissions = dict.fromkeys(permissions, "read")
        found[job] = Token(BOT, "Bot", permissions)
    return found


def secret_name(job: str) -> str:
    """Return the name of the secret that contains the token of a job."""
    return f"TOKEN_OF_{job.upper().replace('-', '_')}"


def prepared(workflow: str, event: Event, secrets: Mapping[str, str]) -> str:
    """Rewrite a workflow file for act, so that four things work as on GitHub.

    - Each job has its own token.
    - An output that contains the text of a secret is empty.
    - If the event has no repository, `github.event.repository` is empty. act alone would invent a repository.
    - The log contains everything that a failed step printed.
    """
    parsed = parse(workflow)
    if "repository" not in event.payload:
        parsed = _replace(parsed, "github.event.repository", "github.event.none")
    texts = ["'{}'".format(text.replace("'", "''")) for text in secrets.values() if text]
    for job, told in parsed["jobs"].items():
        parsed["jobs"][job] = told = _replace(told, "github.token", f"secrets.{secret_name(job)}")
        for name, value in told.get("outputs", {}).items():
            inner = value.removeprefix("${{").removesuffix("}}")
            leaks = " || ".join(f"contains({inner}, {text})" for text in texts) or "false"
            told["outputs"][name] = f"${{{{ !({leaks}) && {inner} || '' }}}}"
        for step in told["steps"]:
            if "run" in step:
                step.setdefault("shell", f"'{STEP}' {{0}}")
    written = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 10_000
    yaml.dump(parsed, written)
    return written.getvalue()


def _replace(value: Any, old: str, new: str) -> Any:
    """Replace a text everywhere in a parsed YAML document."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [_replace(each, old, new) for each in value]
    if isinstance(value, dict):
        return {key: _replace(each, old, new) for key, each in value.items()}
    return value


@dataclass(frozen=True)
class Surroundings:
    """The inputs for act. `folder` contains the clone `workflows/`. `environment` contains environment variables."""

    folder: Path
    secrets: Mapping[str, str]
    variables: Mapping[str, str]
    environment: Mapping[str, str]
    on_step: OnStep


def act(run: Run, given: Surroundings) -> None:
    """Run the workflow file to its end, and record the results in `run`."""
    clone, folder = given.folder / "workflows", given.folder
    (folder / "event.json").write_text(json.dumps(run.event.payload))
    command = [
        *(str(Path(sys.executable).parent / "act"), run.event.name, "--json", "--directory", str(clone)),
        *("--workflows", f".github/workflows/{run.workflow}", "--eventpath", str(folder / "event.json")),
        *("--platform", "ubuntu-24.04=-self-hosted", "--no-skip-checkout", "--no-cache-server", "--pull=false"),
        *("--action-cache-path", str(folder / "jobs"), "--actor", run.event.token.login),
        *(f"--secret={key}={value}" for key, value in given.secrets.items()),
        *(f"--var={key}={value}" for key, value in given.variables.items()),
        *(f"--env={key}={value}" for key, value in given.environment.items()),
        *(f"--local-repository={pin}={ACTIONS / pin.split('/')[1].split('@')[0]}" for pin in pins(clone)),
    ]
    with (
        (folder / "act.jsonl").open("w", encoding="utf-8") as log,
        processes.started(command, folder, _environment(), stdout=subprocess.PIPE, stderr=log) as program,
    ):
        run.program = program
        for line in program.stdout or ():
            log.write(line)
            if step := run.read(line):
                given.on_step(run.workflow, step)
    given.on_step(run.workflow, "")


def pins(repository: Path) -> set[str]:
    """Return the third-party actions, each with its commit, that the workflow files of a repository use."""
    files = (path.read_text(encoding="utf-8") for path in sorted((repository / ".github").rglob("*.yml")))
    return {pin for text in files for pin in re.findall(r"uses: ([\w.-]+/[\w.-]+@[0-9a-f]{40})", text)}


def _environment() -> dict[str, str]:
    """Return the environment variables of this process, except variables that GitHub or pytest sets."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "RUNNER_", "PYTEST_"))}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull}
