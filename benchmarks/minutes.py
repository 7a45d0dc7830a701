"""Print the minutes that GitHub bills for a month: `python -m benchmarks.minutes`.

The benchmark reads the jobs and schedules in .github/workflows, and multiplies the number of runs of each job by the
time in SECONDS. Each job is billed in whole minutes. A skipped job and a job on your own runner cost nothing. An idle
month has no pull requests. The busy month has 20 pull requests and 4 releases, and uses a GitHub App.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.scratch import REPOSITORY, exit_with
from slipway.errors import InputError
from slipway.review.changes import STAGES, classify, pipeline_paths

WORKFLOWS = REPOSITORY / ".github/workflows"
DAYS = 30
SET_UP = {"ci": 15, "dev": 60}
"""Estimated seconds until a job has its runner, its clone, and .venv (unpacked size: `dev` 2.1 GB, `ci` 0.1 GB)."""
SECONDS: dict[str, dict[str, int]] = {
    "cluster.yml": {"cluster": 1500},  # Estimate: kind and its tests have not run on GitHub's runners.
    "comment.yml": {"charts": 5, "comment": 23, "merge": 11},  # `comment` with an estimate of 20 for `make cml`
    "label.yml": {"rerun": 2},
    "monitor.yml": {"monitor": 18},
    "new-data.yml": {"propose": 18},
    "pull-request.yml": {
        "changes": 2,
        "test": 81,  # in a fork, as test_fork.py measured. In the template, the job takes 20 minutes.
        "model": 43,
        "image": 79,  # Estimate: as in ship.yml. Both download the bases and packages of the image on GitHub's runners.
        "pass": 3,
    },
    "rollback.yml": {"rollback": 5},
    "ship.yml": {"candidate": 37, "image": 79, "staging": 5, "production": 5},  # without waiting for a cluster
    "upgrade.yml": {"propose": 240},  # Estimate: `make upgrade` resolves all packages.
}
"""Seconds for the other steps of each job. They were measured with act on two busy cores, unless a comment names
another source.
"""
PULL_REQUESTS: dict[str, tuple[int, int, Sequence[str]]] = {
    "new delivery": (4, 1, ["data.dvc", "dvc.lock"]),
    "model": (4, 2, ["src/model/model.py"]),
    "other code": (8, 2, ["src/slipway/serving/settings.py"]),
    "documentation": (4, 1, ["docs/README.md"]),
}
"""Pull requests in the busy month: their number, how often each is pushed, and the files that it changes."""
RELEASES = 4
Runs = Counter[tuple[str, str]]
"""The number of runs of each job in a month. The key is the file name of the workflow and the name of the job."""


def main() -> int:
    print("\n".join(table(read(WORKFLOWS))))
    return 0


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the workflows in a folder, by file name. Raises InputError if the folder has no workflow."""
    yaml = YAML(typ="safe", pure=True)
    found = {file.name: yaml.load(file) for file in sorted(folder.glob("*.yml"))}
    if not found:
        raise InputError(f"{folder} has no workflows; run the benchmark in the root of the repository.")
    return found


def scheduled(workflows: Mapping[str, Mapping[str, Any]]) -> Runs:
    """Count the jobs that schedules start if SLIPWAY_SCHEDULES is set."""
    found: Runs = Counter()
    for name, workflow in workflows.items():
        times = sum(runs_of(each["cron"]) for each in workflow["on"].get("schedule", ()))
        found += Counter({(name, job): times for job in workflow["jobs"]})
    return found


def runs_of(cron: str) -> int:
    """Return how often a schedule with one fixed minute runs in a month."""
    _, hour, day, month, weekday = cron.split()
    if (day, month) != ("*", "*"):
        raise InputError(f"benchmarks/minutes.py cannot count the schedule {cron!r}; change runs_of.")
    days = DAYS if weekday == "*" else round(DAYS / 7)
    return days * (24 if hour == "*" else 1)


def requested() -> Runs:
    """Count the jobs of the pull requests and releases of the busy month."""
    found: Runs = Counter()
    pipeline = pipeline_paths(REPOSITORY / STAGES)
    for count, pushes, files in PULL_REQUESTS.values():
        ran = {"changes", "pass", *classify(files, pipeline)}
        found += Counter({("pull-request.yml", job): count * pushes for job in ran})
        found += Counter({("comment.yml", job): count * pushes for job in ("charts", "comment")})
    found["comment.yml", "merge"] = RELEASES
    found["ship.yml", "candidate"] = PULL_REQUESTS["new delivery"][0] + PULL_REQUESTS["other code"][0]
    for job in ("image", "staging", "production"):
        found["ship.yml", job] = RELEASES
    return found


def minutes(workflows: Mapping[str, Mapping[str, Any]], name: str, job: str) -> int:
    """Return the billed minutes of one run of a job."""
    steps = workflows[name]["jobs"][job]["steps"]
    (given,) = (step.get("with", {}) for step in steps if step.get("uses") == "./.github/actions/setup")
    return math.ceil((SET_UP[given.get("requirements", "dev")] + SECONDS[name][job]) / 60)


def table(workflows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table with a row for each workflow."""
    by_hand: Runs = Counter({("new-data.yml", "propose"): RELEASES})
    months = [Counter(), scheduled(workflows), requested() + by_hand, requested() + scheduled(workflows)]
    billed = [Counter({key: runs * minutes(workflows, *key) for key, runs in each.items()}) for each in months]
    rows = []
    for name, workflow in workflows.items():
        cells = [sum(month[name, job] for job in workflow["jobs"]) for month in billed]
        if any(cells):
            rows.append((workflow["name"], cells))
    rows.append(("**all**", [month.total() for month in billed]))
    head = ["| minutes a month | idle | idle, with schedules | busy | busy, with schedules |", "|---|--:|--:|--:|--:|"]
    return head + [f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |" for name, cells in rows]


if __name__ == "__main__":
    exit_with(main)
