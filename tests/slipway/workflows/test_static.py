"""The workflow files pass linters and rules of this repository. A test shows that each rule can fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.fakes.workflow_run import ACTIONS, pins
from tests.slipway.conftest import ROOT
from tests.slipway.tools import require

GITHUB = ROOT / ".github"
PINS = pins(ROOT)
FILES = sorted([*GITHUB.glob("workflows/*.yml"), *GITHUB.glob("actions/*/action.yml")])
CHECKED, POSTS, SET_UP = "workflows/pull-request.yml", "workflows/comment.yml", "actions/setup/action.yml"
CLOUD = "actions/cloud/action.yml"
SHIPS, UNDOES, FINDS = "workflows/ship.yml", "workflows/rollback.yml", "workflows/new-data.yml"
WORKFLOWS = sorted(str(file.relative_to(GITHUB)) for file in GITHUB.glob("workflows/*.yml"))
TRIES = "workflows/cluster.yml"
COMMAND = re.compile(r'slipway [a-z-]+( (--[a-z]+ )?([a-z][a-z/]*|"\$[A-Z_]+"))*|make [a-z]+|bash \.ci/run')
PINNED = re.compile(r"uses: (\./\S+|[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)")
GRANT = re.compile(r"\s+[a-z-]+: (read|write)\b")

Rule = Callable[[str], list[str]]


def jobs(text: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(text).get("jobs", {})
    return found


def steps(text: str) -> Iterator[dict[str, Any]]:
    parsed = yaml.safe_load(text)
    for part in (*parsed.get("jobs", {}).values(), parsed.get("runs", {})):
        yield from part.get("steps", [])


def starts(text: str) -> dict[str, Any]:
    """Return the events in `on:`, a word that YAML 1.1 reads as true."""
    parsed = yaml.safe_load(text)
    told: dict[str, Any] = parsed.get("on", parsed.get(True, {}))
    return told


def writes(text: str) -> set[str]:
    """Return the permissions to write. `id-token` only proves the identity of the run to other services."""
    return set(re.findall(r"([a-z-]+): write", text)) - {"id-token"}


# The rules. Each returns what is wrong in the text of a file.


def no_action_without_commit_and_version(text: str) -> list[str]:
    uses = [line.strip().removeprefix("- ") for line in text.splitlines() if re.match(r"\s*(- )?uses:", line)]
    return [line for line in uses if not PINNED.fullmatch(line)]


def no_grant_without_reason(text: str) -> list[str]:
    return [line for line in text.splitlines() if GRANT.match(line) and not re.search(r" # \w+ \w+", line)]


def no_grant_at_the_top(text: str) -> list[str]:
    if "runs" in yaml.safe_load(text):
        return []
    wrong = [name for name, job in jobs(text).items() if not isinstance(job.get("permissions"), dict)]
    return wrong + ["the top"] * (yaml.safe_load(text).get("permissions") != {})


def no_privileged_trigger(text: str) -> list[str]:
    """Return the events that start a workflow but should not: strangers must not start one that writes."""
    if "runs" in yaml.safe_load(text):
        return []
    reads = {"pull_request", "merge_group", "workflow_dispatch", "schedule"}
    if writes(text) == {"actions"}:  # which a run of a fork's pull request does not get
        return sorted(set(starts(text)) - reads - {"repository_dispatch"})
    allowed = reads if not writes(text) else {"workflow_dispatch", "push", "schedule", "repository_dispatch"}
    if text.startswith("# Posts"):
        allowed = {"workflow_run", "workflow_dispatch"}
    return sorted(set(starts(text)) - allowed)


def no_value_in_a_command(text: str) -> list[str]:
    return [step["run"] for step in steps(text) if "${{" in step.get("run", "")]


def no_logic_in_a_command(text: str) -> list[str]:
    return [step["run"] for step in steps(text) if "run" in step and not COMMAND.fullmatch(step["run"])]


def no_cloud_for_a_fork(text: str) -> list[str]:
    """Return the jobs of pull requests that log in to a cloud for a fork, or could and do not need to."""
    if "pull_request" not in starts(text):
        return []
    wrong = []
    for name, job in jobs(text).items():
        logins = [step.get("if") for step in job["steps"] if step.get("uses") == "./.github/actions/cloud"]
        wrong += [name] * (any(each != OF_THIS_REPOSITORY[1:-5] for each in logins))
        wrong += [name] * ("id-token" in job["permissions"] and not logins)
    return wrong


TRAINS = "vars.SLIPWAY_RUNNER || 'ubuntu-24.04' }}"
OF_THIS_REPOSITORY = (
    "(github.event_name != 'pull_request' || github.event.pull_request.head.repo.full_name == github.repository) && "
)


def no_job_without_end(text: str) -> list[str]:
    limits = {name: job.get("timeout-minutes") for name, job in jobs(text).items()}
    settable = "${{ fromJSON(vars.SLIPWAY_TIMEOUT_MINUTES || '60') }}"
    return [name for name, limit in limits.items() if not isinstance(limit, int) and limit != settable]


def no_token_left_in_a_clone(text: str) -> list[str]:
    clones = [step for step in steps(text) if step.get("uses", "").startswith("actions/checkout@")]
    return [str(step) for step in clones if step.get("with", {}).get("persist-credentials") is not False]


def no_secret_outside_of_a_step(text: str) -> list[str]:
    """Count the secrets that are neither in the `env` of a step nor the credential of an action."""
    takes = {"docker/login-action": "password", "actions/create-github-app-token": "private-key"}
    told = 0
    for step in steps(text):
        word = step.get("with", {}).get(takes.get(step.get("uses", "").split("@")[0], ""), "")
        told += json.dumps(step.get("env", {})).count("secrets.") + word.count("secrets.")
    return ["a secret elsewhere"] * (text.count("secrets.") - told)


def no_machine_but_one(text: str) -> list[str]:
    """Return the jobs on a runner other than ubuntu-24.04. Only jobs that train may use your own runner.

    Pull requests from forks run untrusted code, so they never use it.
    """
    own = OF_THIS_REPOSITORY if "pull_request" in starts(text) else ""
    allowed = {"model": f"${{{{ {own}{TRAINS}", "candidate": f"${{{{ {own}{TRAINS}"}
    return [name for name, job in jobs(text).items() if job["runs-on"] not in ("ubuntu-24.04", allowed.get(name))]


def no_schedule_without_its_switch(text: str) -> list[str]:
    """Return the jobs that would use up the minutes of a private repository in each copy of the template."""
    if "schedule" not in starts(text) or "runs" in yaml.safe_load(text):
        return []
    switch = "github.event_name != 'schedule' || vars.SLIPWAY_SCHEDULES != ''"
    return [name for name, job in jobs(text).items() if job.get("if") != switch]


def no_release_that_stays_when_it_is_cancelled(text: str) -> list[str]:
    """Return the steps that undo a release, but not one that was cancelled or timed out. Both count as cancelled."""
    undo = [step for step in steps(text) if re.match(r"slipway (rollback [a-z]|report-failure)", step.get("run", ""))]
    return [step["run"] for step in undo if "(failure() || cancelled()) &&" not in step.get("if", "")]


def no_cml_that_can_push(text: str) -> list[str]:
    """Return the jobs that run CML and whose token can do more than read and comment. CML has 277 packages from npm."""
    allowed = {"actions": "read", "contents": "read", "pull-requests": "write"}
    run_cml = {name: job for name, job in jobs(text).items() if "make cml" in str(job)}
    return [name for name, job in run_cml.items() if not job["permissions"].items() <= allowed.items()]


def no_function_that_needs_node(text: str) -> list[str]:
    """Return the calls of hashFiles. act evaluates it with Node.js, which `make demo` must not need."""
    return re.findall(r"hashFiles\(", text)


RULES = [value for name, value in sorted(globals().items()) if name.startswith("no_")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(GITHUB)))
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_passes_every_rule(rule: Rule, file: Path) -> None:
    assert rule(file.read_text()) == []


@pytest.mark.parametrize(
    ("rule", "file", "old", "new"),
    [
        (no_action_without_commit_and_version, CHECKED, "3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "v7"),
        (no_action_without_commit_and_version, CHECKED, " # v7.0.1", ""),
        (no_action_without_commit_and_version, POSTS, " # v8.0.1", " # v8"),
        (no_action_without_commit_and_version, SET_UP, "27d5ce7f107fe9357f9df03efb73ab90386fccae", "27d5ce7"),
        (no_grant_without_reason, CHECKED, "contents: read # to check out", "contents: read"),
        (
            no_grant_without_reason,
            POSTS,
            "contents: write # to put the charts on the branch `reports`",
            "contents: write # yes",
        ),
        (no_grant_at_the_top, CHECKED, "permissions: {}", "permissions: {contents: read}"),
        (no_grant_at_the_top, POSTS, "permissions: {}", "permissions: read-all"),
        (no_grant_at_the_top, POSTS, "permissions:\n      actions: read", "permissionz:\n      actions: read"),
        (no_privileged_trigger, CHECKED, "  pull_request:", "  pull_request_target:"),
        (no_privileged_trigger, CHECKED, "  merge_group:", "  workflow_run:"),
        (no_privileged_trigger, POSTS, "  workflow_run:", "  issue_comment:"),
        (no_value_in_a_command, POSTS, 'comment "$REPORT"', 'comment "${{ runner.temp }}"'),
        (no_value_in_a_command, CHECKED, "run: slipway reproduce", "run: slipway reproduce ${{ github.head_ref }}"),
        (no_logic_in_a_command, CHECKED, "run: slipway changes", "run: slipway changes && slipway reproduce"),
        (no_logic_in_a_command, CHECKED, "run: make image", "run: |\n          make image\n          make push"),
        (no_logic_in_a_command, SET_UP, "run: make setup", "run: pip install ."),
        (no_function_that_needs_node, SET_UP, "steps.key.outputs.hash", "hashFiles('pyproject.toml')"),
        (no_job_without_end, CHECKED, "timeout-minutes: 60", "timeout-minute: 60"),
        (no_token_left_in_a_clone, CHECKED, "persist-credentials: false", "persist-credentials: true"),
        (no_token_left_in_a_clone, POSTS, "          persist-credentials: false\n", ""),
        (no_secret_outside_of_a_step, CHECKED, "jobs:\n", "env:\n  A: ${{ secrets.A }}\njobs:\n"),
        (no_secret_outside_of_a_step, CHECKED, "name: report\n", "name: ${{ secrets.A }}\n"),
        (no_privileged_trigger, SHIPS, "  workflow_dispatch:", "  pull_request:"),
        (no_logic_in_a_command, SHIPS, "slipway promote staging", "slipway promote staging || true"),
        (no_secret_outside_of_a_step, SHIPS, "subject-name: ${{ steps.build.outputs.name }}", "name: ${{ secrets.A }}"),
        (no_cloud_for_a_fork, CHECKED, f"        if: {OF_THIS_REPOSITORY[1:-5]}\n", ""),
        (
            no_cloud_for_a_fork,
            CHECKED,
            "contents: read # to check out",
            "contents: read # to check out\n      id-token: write",
        ),
        (no_privileged_trigger, CHECKED, "contents: read # to check out", "contents: write # to check out"),
        (no_machine_but_one, CHECKED, "ubuntu-24.04", "ubuntu-latest"),
        (no_machine_but_one, CHECKED, OF_THIS_REPOSITORY, ""),
        (no_machine_but_one, CHECKED, "runs-on: ubuntu-24.04", "runs-on: ${{ " + TRAINS),
        (no_schedule_without_its_switch, TRIES, " || vars.SLIPWAY_SCHEDULES != ''", ""),
        (no_cml_that_can_push, POSTS, "contents: read # to check out", "contents: write # to push"),
        (
            no_release_that_stays_when_it_is_cancelled,
            SHIPS,
            "run: slipway rollback staging\n        if: (failure() || cancelled())",
            "run: slipway rollback staging\n        if: failure()",
        ),
    ],
)
def test_each_rule_can_fail(rule: Rule, file: str, old: str, new: str) -> None:
    text = (GITHUB / file).read_text()
    assert old in text
    assert rule(text.replace(old, new, 1))


def required_check(text: str, ruleset: dict[str, Any]) -> list[str]:
    """Return what is wrong with the required job. GitHub counts a skipped one as passed."""
    rules = {rule["type"]: rule.get("parameters") for rule in ruleset["rules"]}
    (check,) = rules["required_status_checks"]["required_status_checks"]
    job = jobs(text).get(check["context"], {})
    told = {
        "always runs": job.get("if") == "always()",
        "waits for all others": set(job.get("needs", [])) == set(jobs(text)) - {check["context"]},
        "is shown by its own name": job != {} and "name" not in job and "strategy" not in job,
        "is of up-to-date branches": rules["required_status_checks"]["strict_required_status_checks_policy"] is True,
        "is what GitHub Actions says": check["integration_id"] == 15368,
        "runs for every change": not {"paths", "paths-ignore"} & set(starts(text)["pull_request"]),
        "protects main": {"deletion", "non_fast_forward", "required_linear_history", "pull_request"} <= set(rules),
    }
    return [what for what, holds in told.items() if not holds]


def test_the_required_check_runs_for_every_change_and_waits_for_all_jobs() -> None:
    text, ruleset = (GITHUB / CHECKED).read_text(), json.loads((GITHUB / "ruleset.json").read_text())
    assert required_check(text, ruleset) == []
    for old, new, what in [
        ("if: always()", "if: success()", "always runs"),
        ("needs: [changes, test, model, image]", "needs: [changes, test, image]", "waits for all others"),
        ("  pass:\n", "  pass:\n    name: Passed\n", "is shown by its own name"),
        ("  pass:\n", "  passed:\n", "is shown by its own name"),
        ("    branches: [main]\n", "    branches: [main]\n    paths: [src]\n", "runs for every change"),
    ]:
        assert old in text
        assert what in required_check(text.replace(old, new, 1), ruleset)


def outputs_of_changes(text: str) -> list[str]:
    """Return the jobs that do not depend on the output of `changes` with their name."""
    asked = {name: job for name, job in jobs(text).items() if name not in ("changes", "pass")}
    known = jobs(text)["changes"]["outputs"]
    return [
        name
        for name, job in asked.items()
        if known.get(name) != f"${{{{ steps.changes.outputs.{name} }}}}"
        or job["if"] != f"needs.changes.outputs.{name} == 'true'"
    ]


def test_each_job_depends_on_its_output_of_changes() -> None:
    text = (GITHUB / CHECKED).read_text()
    assert outputs_of_changes(text) == []
    assert outputs_of_changes(text.replace("needs.changes.outputs.model == 'true'", "true")) == ["model"]
    assert outputs_of_changes(text.replace("steps.changes.outputs.image", "steps.changes.outputs.test")) == ["image"]


def test_without_an_app_new_data_starts_the_checks_and_comment() -> None:
    """GitHub sends no `workflow_run` for checks that a workflow started, so Comment can also be started by hand."""
    inputs = {file: starts((GITHUB / file).read_text())["workflow_dispatch"]["inputs"] for file in (CHECKED, POSTS)}
    assert {file: list(each) for file, each in inputs.items()} == {CHECKED: ["pull_request"], POSTS: ["run"]}
    (follows,) = [step for step in steps((GITHUB / FINDS).read_text()) if step.get("run") == "slipway follow-data-prs"]
    assert follows["if"] == "${{ !cancelled() && vars.SLIPWAY_APP_ID == '' }}"


def test_no_output_of_ship_contains_the_name_of_the_image() -> None:
    """GitHub drops an output that contains a secret, and a user name can be part of the image's name."""
    outputs = {name: set(job.get("outputs", ())) for name, job in jobs((GITHUB / SHIPS).read_text()).items()}
    assert {name: each for name, each in outputs.items() if each} == {
        "candidate": {"release", "commit"},
        "image": {"digest", "batch-digest"},
    }


def test_a_rollback_gets_a_token_that_is_younger_than_the_release() -> None:
    """The token of an App lives for an hour, which a release may take."""
    for name in ("staging", "production"):
        own = jobs((GITHUB / SHIPS).read_text())[name]["steps"]
        places = {step.get("run", step.get("id")): place for place, step in enumerate(own)}
        fresh = own[places["fresh"]]
        assert fresh["uses"].startswith("actions/create-github-app-token@")
        assert places[f"slipway deploy {name}"] < places["fresh"] < places[f"slipway rollback {name}"]
        rollback = own[places[f"slipway rollback {name}"]]
        assert fresh["if"] == f"{rollback['if']} && vars.SLIPWAY_APP_ID != ''"
        assert "steps.promote.outputs.released == 'true'" in rollback["if"]  # not a release of an earlier run
        assert rollback["env"]["GITHUB_TOKEN"] == "${{ steps.fresh.outputs.token || github.token }}"


def test_a_rollback_and_a_release_have_different_concurrency_groups() -> None:
    """A later run of the same group cancels the one that waits."""
    ship, rollback = (yaml.safe_load((GITHUB / file).read_text())["concurrency"] for file in (SHIPS, UNDOES))
    assert ship["group"] != rollback["group"]


def test_labels_start_no_checks() -> None:
    """A label at opening would start a second run on the same commit, which cancels the first."""
    assert starts((GITHUB / CHECKED).read_text())["pull_request"]["types"] == ["opened", "synchronize", "reopened"]
    rerun = jobs((GITHUB / "workflows/label.yml").read_text())["rerun"]
    assert rerun["if"] == "github.event.label.name == 'ship-anyway'"


def test_comment_merges_no_branch_of_a_fork() -> None:
    merge = jobs((GITHUB / POSTS).read_text())["merge"]
    assert "github.event.workflow_run.head_repository.full_name == github.repository" in merge["if"]


def test_dependabot_leaves_lock_files_and_versions_of_base_images_to_people() -> None:
    """It would change single versions of a lock file, or give one base image another Python than the others."""
    updates = {
        each["package-ecosystem"]: each for each in yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    }
    assert updates["pip"]["open-pull-requests-limit"] == 0
    (ignored,) = updates["docker"]["ignore"]
    assert ignored["update-types"] == [f"version-update:semver-{part}" for part in ("major", "minor")]


def test_an_upgrade_renews_lock_files_and_base_images() -> None:
    """If a registry does not answer, the run fails, and the pull request still gets the lock files."""
    own = list(steps((GITHUB / "workflows/upgrade.yml").read_text()))
    assert [step["run"] for step in own if "run" in step] == [
        "make upgrade",
        "slipway image pin",
        "slipway open-upgrade-pr",
    ]
    assert own[-1]["if"] == "${{ !cancelled() && steps.lock.outcome == 'success' }}"


def heads(text: str) -> list[str]:
    """Return the checkouts that are neither of the default branch nor of a commit from it."""
    mains = ("${{ github.event.repository.default_branch }}", "${{ needs.candidate.outputs.commit }}")
    clones = [step["with"] for step in steps(text) if step.get("uses", "").startswith("actions/checkout@")]
    return [str(each) for each in clones if each.get("ref") not in mains]


def test_workflows_that_write_run_only_the_code_of_main() -> None:
    for file in FILES:
        if writes(file.read_text()):
            assert heads(file.read_text()) == []
    text = (GITHUB / POSTS).read_text()
    assert heads(text.replace("repository.default_branch", "workflow_run.head_sha"))


def test_the_workflow_of_pull_requests_does_not_write() -> None:
    text = (GITHUB / CHECKED).read_text()
    assert writes(text) == set()
    assert writes(text.replace("contents: read", "contents: write")) == {"contents"}


def test_each_action_has_a_fake_and_one_pinned_commit() -> None:
    """Without a fake, act would download the action."""
    assert {pin.split("@")[0].split("/")[1] for pin in PINS} == {folder.name for folder in ACTIONS.iterdir()}
    assert len(PINS) == len({pin.split("@")[0] for pin in PINS})


def lint(*command: str, text: str | None = None) -> tuple[int, str]:
    """Run a linter of this environment, or one that .ci/tools installs. It sees no network."""
    program = shutil.which(command[0], path=sys.prefix + "/bin") or require(command[0])
    environ = {name: value for name, value in os.environ.items() if not name.endswith("TOKEN")}
    done = subprocess.run([program, *command[1:]], cwd=ROOT, env=environ, input=text, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


ZIZMOR = ("zizmor", "--offline", "--no-progress", "--config", str(GITHUB / "zizmor.yml"))
ACTIONLINT = ("actionlint", "-shellcheck=", "-pyflakes=")


def schema(name: str, file: Path | str) -> tuple[int, str]:
    return lint("check-jsonschema", "--builtin-schema", f"vendor.{name}", str(file))


def test_zizmor_finds_nothing() -> None:
    code, words = lint(*ZIZMOR, str(GITHUB))
    assert code == 0, words
    assert "No findings to report" in words


@pytest.mark.parametrize(
    ("file", "old", "new", "audit"),
    [
        (POSTS, " # zizmor: ignore[dangerous-triggers]", " #", "dangerous-triggers"),
        (CHECKED, "run: slipway changes", "run: slipway ${{ github.head_ref }}", "template-injection"),
        (CHECKED, "3d3c42e5aac5ba805825da76410c181273ba90b1", "v7", "unpinned-uses"),
        (CHECKED, "          persist-credentials: false\n", "", "artipacked"),
    ],
)
def test_zizmor_can_fail(tmp_path: Path, file: str, old: str, new: str, audit: str) -> None:
    changed = tmp_path / ".github" / file
    changed.parent.mkdir(parents=True)
    text = (GITHUB / file).read_text()
    assert old in text
    changed.write_text(text.replace(old, new, 1))
    code, words = lint(*ZIZMOR, str(changed))
    assert code != 0
    assert audit in words


@pytest.mark.parametrize("file", WORKFLOWS)
def test_actionlint_finds_nothing(file: str) -> None:
    code, words = lint(*ACTIONLINT, str(GITHUB / file))
    assert (code, words) == (0, "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps.judge.outcome", "steps.juge.outcome"),
        ("needs: changes", "needs: change"),
        ("outputs.model == 'true'", "outputs.modell == 'true'"),
        ("timeout-minutes: 60", "timeout-minutes: sixty"),
    ],
)
def test_actionlint_can_fail(old: str, new: str) -> None:
    text = (GITHUB / CHECKED).read_text()
    assert old in text
    code, words = lint(*ACTIONLINT, "-stdin-filename", str(GITHUB / CHECKED), "-", text=text.replace(old, new))
    assert code == 1, words


@pytest.mark.parametrize(
    ("name", "file"),
    [
        *(("github-workflows", file) for file in WORKFLOWS),
        ("github-actions", SET_UP),
        ("github-actions", CLOUD),
        ("dependabot", "dependabot.yml"),
    ],
)
def test_the_files_match_their_schemas(tmp_path: Path, name: str, file: str) -> None:
    assert schema(name, GITHUB / file) == (0, "ok -- validation done\n")
    wrong = tmp_path / Path(file).name
    wrong.write_text((GITHUB / file).read_text().replace("timeout-minutes", "timeout").replace("using:", "uses:"))
    wrong.write_text(wrong.read_text().replace("interval: weekly", "interval: sometimes"))
    assert schema(name, wrong)[0] == 1


def test_the_key_of_the_cache_changes_with_the_path_of_the_clone() -> None:
    """The cached .venv has absolute paths, which contain the name of the repository."""
    (cache,) = [step for step in steps((GITHUB / SET_UP).read_text()) if "actions/cache@" in step.get("uses", "")]
    for part in ("github.repository", "runner.environment", "runner.arch", "steps.key.outputs.hash"):
        assert f"${{{{ {part} }}}}" in cache["with"]["key"]


def test_each_ignored_finding_has_a_reason() -> None:
    for file in FILES:
        for line in file.read_text().splitlines():
            if "zizmor: ignore" in line:
                assert re.search(r"zizmor: ignore\[[a-z-]+\] \w+ \w+", line)


def test_code_owners_contain_only_commented_examples() -> None:
    lines = (GITHUB / "CODEOWNERS").read_text().splitlines()
    assert all(line.startswith("#") or not line for line in lines)
    named = [match[1] for line in lines if (match := re.match(r"# /(\S+) +@", line))]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_cluster_is_made_only_where_there_is_a_release_to_try() -> None:
    """`slipway status` writes an output. Without a champion the other steps are skipped."""
    (job,) = jobs((GITHUB / TRIES).read_text()).values()
    names = [step.get("run", step.get("uses", "")) for step in job["steps"]]
    told = names.index("slipway status")
    assert job["steps"][told]["id"] == "status"
    assert names[told + 1 :]
    for step in job["steps"][told + 1 :]:
        assert step["if"] == "steps.status.outputs.champion == 'true'"
