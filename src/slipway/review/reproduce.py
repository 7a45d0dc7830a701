"""The pipeline as a pull request runs it: from what the base has, whatever the change says of itself."""

import re
from collections.abc import Collection
from pathlib import Path

from slipway import artifacts, atomic
from slipway.errors import CheckFailed, SlipwayError
from slipway.integrations import process
from slipway.review.changes import changed_files, merge_base
from slipway.review.report import Stopped

CONFIG = Path(".dvc/config")
STOPPED = Path("build/stopped.json")


def judge(base: str | None) -> None:
    """Bring data and champion here, restore or run each stage, and judge.

    The dvc.lock of the base is what counts: a change may bring one that claims anything. What it claims is compared
    with the result when the report is written. Raises CheckFailed where there is no verdict; build/stopped.json says
    why.
    """
    # Whatever ends this, a verdict that came with the change is not taken for ours.
    Stopped(stage="judge", words="it did not come to its end").write(STOPPED)
    try:
        since = merge_base(base)
        touched = changed_files(since)
        _refuse_a_release(since, touched)
        process.run("dvc", "pull", "--quiet", str(artifacts.DATA_DVC), str(artifacts.CHAMPION_DVC))
        repro = _restore(since, touched)
    except SlipwayError as error:
        raise _stopped("judge", str(error)) from None
    code, output = process.tee(*repro)
    if code:
        raise _stopped(*last_words(output))
    STOPPED.unlink()


def last_words(output: str) -> tuple[str, str]:
    """The stage at which `dvc repro` stopped, and the sentence that it or DVC said."""
    stages = re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE)
    said = re.findall(r"^(?:slipway|ERROR): (.+)", output, re.MULTILINE)
    return stages[-1] if stages else "dvc", said[0] if said else "it said nothing"


def _stopped(stage: str, words: str) -> CheckFailed:
    Stopped(stage=stage[:200], words=words[:2_000]).write(STOPPED)
    return CheckFailed(f"There is no verdict, because {stage} stopped: {words}")


def _refuse_a_release(since: str, touched: Collection[str]) -> None:
    if released := set(artifacts.CHAMPION_FILES).intersection(touched):
        raise CheckFailed(
            f"{min(released)} is changed here, which only a release does, as it says which model is live; take it back "
            f"with `git checkout {since[:12]} {' '.join(sorted(artifacts.CHAMPION_FILES))}`."
        )


def _restore(since: str, touched: Collection[str]) -> tuple[str, ...]:
    """Bring here what is known of the stages of the base; returns how to run the others.

    A run-cache says what a stage would give, and is believed only where a change cannot have written it.
    """
    atomic.write_text(artifacts.LOCK, process.run("git", "show", f"{since}:{artifacts.LOCK}") + "\n")
    if _remote_is_in_reach(touched):
        # What the remote does not have costs time and no more; what is wrong, `dvc repro` says again, and better.
        process.show("dvc", "pull", "--quiet", "--allow-missing")
        return "dvc", "repro", "--no-run-cache"
    return "dvc", "repro", "--pull"  # which brings the remote's run-cache here first


def _remote_is_in_reach(touched: Collection[str]) -> bool:
    """Whether a change can write to the default remote: it lies in this repository, or the change names another."""
    return embedded_remote() is not None or str(CONFIG) in touched


def embedded_remote() -> Path | None:
    """Where in this repository the default DVC remote lies, if it lies there."""
    url = process.run("dvc", "config", f"remote.{process.run('dvc', 'config', 'core.remote')}.url")
    top, folder = Path().resolve(), (CONFIG.parent / url).resolve()
    return folder.relative_to(top) if "://" not in url and folder.is_relative_to(top) else None
