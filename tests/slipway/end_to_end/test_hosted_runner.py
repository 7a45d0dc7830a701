"""The suite passes as a job of GitHub runs it: an ordinary user, the job's variables, no user namespaces.

https://docs.github.com/actions/reference/workflows-and-actions/variables
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slipway import tools
from tests.slipway.conftest import Repository
from tests.slipway.end_to_end.image import engine
from tests.slipway.tools import require_linux

USER = "1001"
JOB = Path("/srv/runner/job")
AS_RUNNER = f"""
set -eu
clone=$1 root=$2 job=$3
shift 3
mount -t tmpfs tmpfs /srv
mkdir -p /srv/runner/work
cp -r "$clone" /srv/runner/work/slipway
mkdir -p /srv/runner/work/slipway/build
if [ -d "{tools.FOLDER}" ]; then cp -r "{tools.FOLDER}" /srv/runner/work/slipway/build; fi
mkdir {JOB}
mount --bind "$job" {JOB}
chown -R {USER}:{USER} /srv/runner
printf 'runner:x:{USER}:{USER}::/srv/runner:/bin/sh\\n' | cat /etc/passwd - > /srv/passwd
mount --bind /srv/passwd /etc/passwd
mount --rbind / "$root"  # below another root the kernel refuses user namespaces
exec chroot "$root" setpriv --reuid={USER} --regid={USER} --clear-groups \
    --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search \
    sh -c 'cd /srv/runner/work/slipway; "$@"' sh "$@"
"""
"""A script for root. The user may read what only root may: the interpreter can be in root's home."""

PULL_REQUEST = {"number": 1, "pull_request": {"number": 1, "head": {"sha": "a" * 40}, "base": {"ref": "main"}}}
QUEUE = {"merge_group": {"base_sha": "b" * 40, "head_ref": "refs/heads/gh-readonly-queue/main/pr-1-" + "b" * 40}}
EVENTS = {"pull_request": PULL_REQUEST, "merge_group": QUEUE}
PARTS = {
    "pull_request": [
        "tests/slipway/release/test_candidate.py::test_candidate_that_may_ship_becomes_the_champion",
        "tests/slipway/end_to_end/image/test_push.py",
    ],
    "merge_group": ["tests/slipway/review/test_changes.py", "tests/slipway/review/test_event.py"],
}
"""Tests of what reads the event of a run, git's history, or the container engine."""


def variables(event: str, folder: Path) -> dict[str, str]:
    """Return what GitHub sets in a job. Steps report to files in `folder`."""
    return {
        "HOME": str(folder.parent),
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_EVENT_NAME": event,
        "GITHUB_EVENT_PATH": str(folder / "event.json"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_REF": "refs/pull/1/merge",
        "GITHUB_REPOSITORY": "team/houses",
        "GITHUB_RUN_ID": "1",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_SHA": "c" * 40,
        "RUNNER_TEMP": str(folder),
        "SLIPWAY_BASE": "b" * 40,
    }


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an engine that runs already, and that every user may use."""
    if address := engine.running_engine():
        yield address
        return
    engine.require_all()
    folder = tmp_path_factory.mktemp("own")  # Podman takes only short paths
    socket = folder / "sock"
    with engine.podman(folder / "p", socket):
        socket.chmod(0o666)
        yield f"unix://{socket}"


@pytest.mark.parametrize("event", EVENTS)
def test_the_suite_passes_on_a_hosted_runner(event: str, docker: str, origin: Repository, tmp_path: Path) -> None:
    require_linux()
    clone, job, root = origin.clone(tmp_path / "clone").path, tmp_path / "job", tmp_path / "root"
    job.mkdir()
    root.mkdir()
    (job / "event.json").write_text(json.dumps(EVENTS[event]))
    runner: list[str] = []
    seen = job
    if os.geteuid() == 0:
        seen = JOB
        runner = ["unshare", "--mount", "--propagation", "private", "sh", "-c", AS_RUNNER, "sh"]
        runner += [str(clone), str(root), str(job)]
        refused = subprocess.run([*runner, "unshare", "--map-root-user", "true"], capture_output=True, check=False)
        assert b"Operation not permitted" in refused.stderr
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={seen}/pytest", *PARTS[event]]
    environment = os.environ | variables(event, seen) | {"DOCKER_HOST": docker}
    done = subprocess.run([*runner, *tests], cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert {each.name for each in job.iterdir()} == {"event.json", "pytest"}
