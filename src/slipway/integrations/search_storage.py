"""Choose the trials of a search with Optuna, and store the finished trials in an Optuna journal.

The next trials depend only on the finished trials, so a search chooses the same trials even if it is interrupted. A
trial that was running at the interruption is not stored, so it runs again.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway.config import Range, Tune
from slipway.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

DIGITS = 4
"""Number of significant digits to which a chosen number is rounded, so that values in params.yaml are short."""
CURRENT, ERROR, GIVEN = "current", "error", "settings"


@dataclass(frozen=True)
class Outcome:
    """The mean loss of a trial, or the error with which it failed."""

    loss: float | None
    error: str = ""


@dataclass(frozen=True)
class Trial:
    """A finished trial: the values of the searched settings, and the outcome."""

    settings: Mapping[str, Any]
    outcome: Outcome


class SearchStorage:
    """The finished trials of one search, in a file that can hold several searches."""

    def __init__(self, path: Path, name: str, rules: Tune) -> None:
        """Open or create the search `name`. Raises InputError if Optuna is missing, or if the file is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _errors(path):
            import optuna
            from optuna.storages.journal import JournalFileBackend

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            _remove_half_line(path)
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
            self._study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        self._rules = rules
        self._distributions = {name: _distribution(each) for name, each in rules.settings.items()}

    def finished(self) -> list[Trial]:
        """Return the finished trials, the oldest first."""
        return [self._trial(each) for each in self._study.get_trials(deepcopy=False)]

    def add(self, trial: Trial) -> None:
        """Store a finished trial, completely or not at all."""
        self._study.add_trial(self._frozen(trial))

    def current(self, settings: Mapping[str, Any]) -> Outcome | None:
        """Return the stored outcome for the settings in params.yaml, or None."""
        stored = self._study.user_attrs.get(CURRENT)
        if stored is None or stored[GIVEN] != json.dumps(settings):
            return None
        return Outcome(stored["loss"], stored[ERROR])

    def set_current(self, trial: Trial) -> None:
        """Store the outcome of the settings in params.yaml."""
        given = {GIVEN: json.dumps(trial.settings), "loss": trial.outcome.loss, ERROR: trial.outcome.error}
        self._study.set_user_attr(CURRENT, given)

    def choose(self, finished: Sequence[Trial], count: int) -> list[dict[str, Any]]:
        """Return the settings of the next `count` trials, which depend only on the finished trials and the seed."""
        import optuna

        # Optuna's sampler has a random state that advances with every trial. With a new sampler for each batch, the
        # trials do not depend on how often the search was interrupted.
        seed = int(np.random.SeedSequence([self._rules.seed, len(finished)]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        study.add_trials([self._frozen(each) for each in finished])
        return [
            {name: self._short(name, value) for name, value in study.ask(self._distributions).params.items()}
            for _ in range(count)
        ]

    def _short(self, name: str, value: Any) -> Any:
        rule = self._rules.settings[name]
        if not isinstance(rule, Range) or not isinstance(value, float):
            return value
        digits = DIGITS if rule.step is None else 12
        return min(max(float(f"{value:.{digits}g}"), float(rule.low)), float(rule.high))

    def _frozen(self, trial: Trial) -> "FrozenTrial":
        from optuna.trial import TrialState, create_trial

        failed = trial.outcome.loss is None
        return create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            value=trial.outcome.loss,
            params=dict(trial.settings),
            distributions=self._distributions,
            user_attrs={ERROR: trial.outcome.error} if failed else {},
        )

    def _trial(self, frozen: "FrozenTrial") -> Trial:
        settings = {name: frozen.params[name] for name in self._distributions}
        value = frozen.value
        loss = value if value is not None and math.isfinite(value) else None
        return Trial(settings, Outcome(loss, frozen.user_attrs.get(ERROR, "")))


def _distribution(rule: Range | list[Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(rule, list):
        return CategoricalDistribution(rule)
    if rule.whole:
        return IntDistribution(int(rule.low), int(rule.high), log=rule.log, step=int(rule.step or 1))
    return FloatDistribution(rule.low, rule.high, log=rule.log, step=rule.step)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"The package {error.name} is not installed, but `slipway tune` needs it; run `make setup`, or install "
            "optuna."
        ) from None
    except (ValueError, KeyError) as error:  # Optuna raises these errors for a damaged journal
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}); delete it to start the search again.") from None


def _remove_half_line(path: Path) -> None:
    """Remove the last line if it is incomplete. A process that is killed while it writes leaves an incomplete line."""
    content = path.read_bytes() if path.is_file() else b""
    if not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])
