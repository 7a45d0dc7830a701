"""The champion: which model is live. champion.dvc says it, champion/ holds its bundle."""

import json
import shutil

from slipway import artifacts, atomic, commands
from slipway.artifacts import Release, Verdict
from slipway.bundle import folder_hash
from slipway.errors import Refused


def crown() -> Release:
    """Make the challenger that was judged the champion.

    Copies the bundle, records how it scored, and tracks it with DVC. Raises Refused unless the verdict lets it ship,
    and unless DVC finds that everything is as it was when the pipeline gave this verdict: data, code, rules, scores,
    the champion and the verdict itself.
    """
    verdict = Verdict.read(artifacts.VERDICT)
    if not verdict.may_ship:
        raise Refused(f"{artifacts.VERDICT} says {verdict.verdict}: {verdict.reason}; only what may ship is crowned.")
    changed = json.loads(commands.run("dvc", "status", "--json"))
    if changed or folder_hash(artifacts.BUNDLE) != verdict.challenger_bundle:
        raise Refused(
            f"{', '.join(changed) or artifacts.BUNDLE} changed after the verdict was given; run `dvc repro`, which "
            "judges again."
        )
    with atomic.replacing(artifacts.CHAMPION) as fresh:
        shutil.copytree(artifacts.BUNDLE, fresh)
    release = Release(
        champion=verdict.challenger_bundle,
        loss=verdict.loss,
        value=verdict.challenger_loss,
        verdict="ship" if verdict.verdict == "ship" else "first",
        reason=verdict.reason,
        holdout=verdict.holdout,
    )
    release.write(artifacts.RELEASE)
    commands.run("dvc", "add", "--quiet", str(artifacts.CHAMPION))
    return release
