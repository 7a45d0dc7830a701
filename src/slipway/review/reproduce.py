"""Run the pipeline for a pull request, starting from the results of the base branch.

Pipeline results in the pull request itself are ignored.
"""

import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from slipway import artifacts, atomic
from slipway.artifacts import Verdict
from slipway.config import load_params
from slipway.errors import CheckFailed, SlipwayError
from slipway.integrations import dvc, git, process
from slipway.pipeline import gate
from slipway.review import chart_branch
from slipway.review.changes import changed_files, merge_base
from slipway.review.looks import looks_in, number_of
from slipway.review.report import Stopped

STOPPED = Path("build/stopped.json")


def reproduce(base: str | None) -> None:
    """Pull data and champion, then restore or run each stage of the pipeline.

    The dvc.lock of the base branch is used, because a change can commit a dvc.lock with any content. The report
    compares the committed dvc.lock with the new dvc.lock. Raises CheckFailed if there is no verdict, and writes the
    reason to build/stopped.json.
    """
    # This file is written first, so that a verdict in the change is ignored even if this process is killed.
    Stopped(stage="reproduce", reason="it was interrupted").write(STOPPED)
    try:
        since = merge_base(base)
        touched = changed_files(since)
        _refuse_release_files(since, touched)
        _pull()
        command = _restore(since, touched)
    except SlipwayError as error:
        raise _stop("reproduce", str(error)) from None
    try:
        process.run(*command, echo=True)
    except process.ProcessFailed as error:
        raise _stop(*stage_and_reason(error.output)) from None
    count_looks()
    STOPPED.unlink()


def count_looks() -> None:
    """Run the gate again with a wider interval, if `gate.count_looks` is set and other models were evaluated before.

    After this second run of the gate, metrics/verdict.json differs from dvc.lock until the pipeline runs again.
    """
    params = load_params(artifacts.PARAMS)
    verdict = Verdict.read(artifacts.VERDICT)
    if not params.gate.count_looks or verdict.verdict == "unchanged" or verdict.same_predictions:
        return
    number = number_of(looks_in(git.messages(chart_branch.BRANCH)), verdict.challenger_bundle, verdict.holdout)
    if number > 1:
        gate.run(params, number)


def stage_and_reason(output: str) -> tuple[str, str]:
    """Return the stage at which `dvc repro` stopped, and the error that the stage or DVC printed."""
    stages = re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE)
    errors = re.findall(r"^(?:slipway|ERROR): (.+)", output, re.MULTILINE)
    return stages[-1] if stages else "dvc", errors[0] if errors else "it printed nothing"


def _stop(stage: str, reason: str) -> CheckFailed:
    Stopped(stage=stage[:200], reason=reason[:2_000]).write(STOPPED)
    return CheckFailed(f"There is no verdict, because {stage} stopped: {reason}")


def _refuse_release_files(since: str, touched: Collection[str]) -> None:
    if released := set(artifacts.CHAMPION_FILES).intersection(touched):
        raise CheckFailed(
            f"{min(released)} is changed here, but only a release may change which model is live; undo it with "
            f"`git checkout {since[:12]} {' '.join(sorted(artifacts.CHAMPION_FILES))}`."
        )


def _pull() -> None:
    try:
        process.run("dvc", "pull", str(artifacts.DATA_DVC), str(artifacts.CHAMPION_DVC))
    except process.ProcessFailed as error:
        raise CheckFailed(f"{error}. If the data was not pushed, run `dvc push` where it is.") from None


def _restore(since: str, touched: Collection[str]) -> tuple[str, ...]:
    """Restore the results of the base branch, and return the command that runs the stages without a restored result.

    DVC's run-cache contains earlier results of stages. The run-cache is used only if the change cannot write to it.
    """
    atomic.write_text(artifacts.LOCK, process.run("git", "show", f"{since}:{artifacts.LOCK}") + "\n")
    if _change_can_write_to_remote(touched):
        with suppress(process.ProcessFailed):  # a stage without a restored result runs again
            process.run("dvc", "pull", "--allow-missing")
        return "dvc", "repro", "--no-run-cache"
    return "dvc", "repro", "--pull"  # `--pull` also pulls the run-cache


def _change_can_write_to_remote(touched: Collection[str]) -> bool:
    """Return True if the default DVC remote is a folder of this repository, or if the change configures the remote."""
    return dvc.embedded_remote() is not None or str(dvc.CONFIG) in touched
