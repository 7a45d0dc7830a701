"""Time a release, and concurrent promotions to `main`: `python -m benchmarks.release`.

The measured time starts after a merge and ends when the release commit for production is pushed. The benchmark runs the
`slipway` commands from .github/workflows/ship.yml in a fresh clone, in which 1997H2 was merged. A DVC remote already
has the results of the pull request's run, so the model is restored. The time to build, push and test the image and to
wait for the cluster is not included. The time to start machines and unpack the environment is not included either (see
`benchmarks/pull_request.py`).

The concurrent part starts many promotions to staging at the same time (`--promotions`), while other processes push
commits (`--pushes`). Required: each promotion reaches `main`, the history stays linear, and no pushed edit is lost. The
time of the slowest promotion is printed.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.table import Table

from benchmarks.scratch import REPOSITORY, clone, console, environment, exit_with, require
from slipway.errors import SlipwayError
from slipway.integrations import process
from slipway.integrations.git import snapshot
from slipway.release.history import STAGING, overlay_file, releases

IDENTITY = ("-c", "user.name=B", "-c", "user.email=b@localhost")
IMAGE = "localhost:1/team/houses"
MOST_SECONDS = 30.0


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        work = _merge(scratch)
        parts = _release(work)
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("from merge to release, model restored")
        table.add_column("seconds", justify="right")
        for step, seconds in {**parts, "in all": sum(parts.values())}.items():
            table.add_row(step, f"{seconds:.1f}")
        console.print(table)
        slowest, landed, linear, kept = _race(scratch, work, arguments.promotions, arguments.pushes)
    console.print(
        f"\n{arguments.promotions} promotions and {arguments.pushes} pushes: the slowest took {slowest:.1f} s."
    )
    return require(
        {
            f"from merge to pushed release: at most {MOST_SECONDS:.0f} s ({sum(parts.values()):.1f})": sum(
                parts.values()
            )
            <= MOST_SECONDS,
            f"all promotions reach main ({landed} of {arguments.promotions})": landed == arguments.promotions,
            "history is linear": linear,
            f"no pushed edit is lost ({kept} of {arguments.pushes})": kept == arguments.pushes,
        }
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--promotions", type=int, default=50, help="number of concurrent promotions")
    parser.add_argument("--pushes", type=int, default=25, help="number of concurrent pushes of other commits")
    return parser.parse_args()


def _merge(scratch: Path) -> Path:
    """Create a clone of `main` after a delivery was merged, and a DVC remote with the results of its pull request."""
    pull, origin, remote = scratch / "pull", scratch / "origin.git", scratch / "remote"
    clone(pull, "data.dvc", "champion.dvc")
    params = pull / "params.yaml"
    params.write_text(params.read_text().replace("image: null", f"image: {IMAGE}"))
    process.run("slipway", "ingest", at=pull)
    process.run("dvc", "remote", "add", "--quiet", "--default", "runs", str(remote), at=pull)
    lock = (pull / "dvc.lock").read_text()
    process.run("dvc", "repro", "--quiet", at=pull)
    process.run("dvc", "push", "--quiet", "--run-cache", at=pull)
    (pull / "dvc.lock").write_text(lock)  # a pull request does not have to commit dvc.lock
    process.run("git", "checkout", "--quiet", "HEAD", "--", "metrics", at=pull)
    _commit(pull, "Deliver 1997H2")
    process.run("git", "clone", "--quiet", "--bare", str(pull), str(origin))
    process.run("git", "clone", "--quiet", str(origin), str(scratch / "work"))
    return scratch / "work"


def _commit(at: Path, words: str) -> None:
    process.run("git", "add", "--all", at=at)
    process.run("git", *IDENTITY, "commit", "--quiet", "-m", words, at=at)


def _release(work: Path) -> dict[str, float]:
    """Run the commands of a release. Return the seconds that each command took."""
    image = ("--image", IMAGE, "--tag", "sha-000000000001", "--digest", f"sha256:{1:064x}")
    steps = (
        ("slipway", "candidate"),
        ("slipway", "promote", "staging", *image),
        ("slipway", "promote", "production", *image),
    )
    return {" ".join(step[:3]): _seconds(step, work) for step in steps}


def _seconds(command: Sequence[str], at: Path) -> float:
    environ = {key: value for key, value in environment(at).items() if not key.startswith(("GITHUB_", "MLFLOW_"))}
    start = time.monotonic()
    done = subprocess.run(command, cwd=at, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlipwayError(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - start


def _race(scratch: Path, work: Path, promotions: int, pushes: int) -> tuple[float, int, bool, int]:
    """Run promotions and pushes concurrently.

    Returns the seconds of the slowest promotion, the number of promotions on `main`, whether the history is linear, and
    the number of pushed edits on `main`.
    """
    origin = scratch / "origin.git"
    before = process.run("git", "rev-parse", "main", at=origin)

    def promote(number: int) -> float:
        place = scratch / f"promoter-{number}"
        process.run("git", "clone", "--quiet", str(origin), str(place))
        process.run("cp", "-r", str(work / "build"), str(place / "build"))
        image = ("--image", IMAGE, "--tag", f"sha-{number + 2:012x}", "--digest", f"sha256:{number + 2:064x}")
        return _seconds(("slipway", "promote", STAGING, *image), place)

    def push(number: int) -> None:
        place = scratch / f"pusher-{number}"
        process.run("git", "clone", "--quiet", str(origin), str(place))
        if number == 0:  # the promotions also change this file
            overlay = place / overlay_file(STAGING)
            overlay.write_text(f"# edit {number}\n{overlay.read_text()}")
        (place / f"edit-{number}").write_text(f"# edit {number}\n")
        _commit(place, f"Edit {number}")
        while subprocess.run(
            ["git", "push", "--quiet", "origin", "HEAD:main"], cwd=place, capture_output=True, check=False
        ).returncode:
            process.run("git", *IDENTITY, "pull", "--quiet", "--rebase", "origin", "main", at=place)

    with ThreadPoolExecutor(promotions + pushes) as pool:
        promoting = [pool.submit(promote, number) for number in range(promotions)]
        pushing = [pool.submit(push, number) for number in range(pushes)]
        took = [each.result() for each in promoting]
        for each in pushing:
            each.result()
    now = snapshot("main", origin)
    tags = {each.deployed.image.tag for each in releases(now, STAGING)}
    landed = sum(f"sha-{number + 2:012x}" in tags for number in range(promotions))
    made = int(process.run("git", "rev-list", "--count", f"{before}..main", at=origin))
    merges = process.run("git", "rev-list", "--merges", f"{before}..main", at=origin)
    kept = sum(now.read(f"edit-{number}") is not None for number in range(pushes))
    kept -= 0 if (now.read(overlay_file(STAGING)) or b"").startswith(b"# edit 0\n") else 1
    return max(took), landed, not merges and made == promotions + pushes, kept


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    exit_with(main)
