"""`slipway deploy` reads the Rollout of a canary. Its status is as Argo Rollouts 1.9 writes it."""

from collections.abc import Callable
from typing import Any

import pytest

from slipway.errors import CheckFailed, InputError
from slipway.release import canary
from tests.slipway.release.canary_objects import APPLIED, OF, Objects, of_image, with_status
from tests.slipway.release.conftest import Clock, image

MESSAGE = 'RolloutAborted: Rollout aborted update to revision 2: Metric "errors" assessed Failed'


def of_an_older_release() -> Objects:
    found = with_status(phase="Healthy")
    found[OF] |= of_image(1)
    return found


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Follow a canary whose objects have each state for a second, and the last one forever."""
    clock = Clock()
    monkeypatch.setattr(canary, "time", clock)

    def run(*states: Objects | None) -> str:
        def read(name: str) -> dict[str, Any]:
            state = states[min(int(clock.now), len(states) - 1)]
            if state is None:
                raise InputError("`kubectl get` failed: the connection was refused")
            return state[name]

        return canary.follow(read, OF, image(2), 600)

    return run


def test_a_canary_is_complete_when_argo_rollouts_has_promoted_it(follow: Callable[..., str]) -> None:
    waiting = [APPLIED, None, with_status(phase="Paused")]
    assert follow(*waiting, with_status(phase="Healthy")) == "Argo Rollouts has promoted the canary, 3 s later"


@pytest.mark.parametrize(
    "old",
    [
        of_an_older_release(),
        with_status(phase="Healthy", workloadObservedGeneration="6"),
        with_status(phase="Healthy", observedGeneration="2"),
        with_status(abort=True, workloadObservedGeneration="6"),
    ],
)
def test_the_state_of_an_older_release_does_not_count(follow: Callable[..., str], old: Objects) -> None:
    assert follow(old, old, with_status(phase="Healthy")).endswith(", 2 s later")


def test_an_aborted_canary_fails_at_once_with_the_reason(follow: Callable[..., str]) -> None:
    with pytest.raises(CheckFailed, match=r"has aborted the canary: RolloutAborted: .* assessed Failed"):
        follow(APPLIED, with_status(phase="Degraded", abort=True, message=MESSAGE))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (with_status(phase="Paused", message="InconclusiveAnalysisRun"), "InconclusiveAnalysisRun"),
        (of_an_older_release(), "the release is not applied yet"),
        (None, "the connection was refused"),
    ],
)
def test_a_canary_that_is_not_promoted_in_time_fails(
    follow: Callable[..., str], state: Objects | None, words: str
) -> None:
    with pytest.raises(CheckFailed, match=f"has not promoted the canary after 600 s: .*{words}"):
        follow(state)
