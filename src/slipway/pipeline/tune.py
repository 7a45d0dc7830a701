"""tune: search for better `train.settings` on folds of the training rows. The holdout is never read."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b, file_digest
from itertools import islice
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slipway import artifacts, atomic
from slipway.bundle import Schema
from slipway.config import Params, Tune
from slipway.contract import Model, load_model
from slipway.errors import CheckFailed, InputError
from slipway.integrations.compute import Engine, run_each
from slipway.integrations.search_storage import Outcome, SearchStorage, Trial
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.folds import Fold, make_folds
from slipway.pipeline.measure import measure_of, row_weights
from slipway.pipeline.parquet import read_table
from slipway.pipeline.published import refuse_rare_tokens
from slipway.pipeline.tensors import describe
from slipway.pipeline.threshold import decide
from slipway.pipeline.train import classes_of, fit, fit_checked
from slipway.pipeline.training_rows import Rows, row_reader
from slipway.statistics.blocks import average
from slipway.statistics.metrics import Floats

STORAGE = Path("build/tune/trials.log")
CODE, PACKAGES = Path("src/model"), Path("requirements/train.txt")


@dataclass(frozen=True)
class Search:
    """The finished trials of a search, and the trial with the settings that params.yaml has now."""

    name: str
    loss: str
    current: Trial
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the smallest loss, or the first of several trials with this loss."""
        return min(self.trials, key=lambda trial: np.inf if trial.outcome.loss is None else trial.outcome.loss)

    @property
    def is_better(self) -> bool:
        """True if the best trial has a smaller loss than the settings in params.yaml."""
        best, current = self.best.outcome.loss, self.current.outcome.loss
        return best is not None and (current is None or best < current)


@dataclass(frozen=True)
class Objective:
    """Fit the model with the given settings on each fold, and measure the loss by which the gate compares models."""

    params: Params
    schema: Schema
    folds: tuple[Fold, ...]

    def __call__(self, settings: Mapping[str, Any]) -> Outcome:
        """Return the mean loss over the comparison rows of all folds. This method can run in another process."""
        params, model = with_settings(self.params, settings), load_model()
        try:
            with row_reader(model) as read:
                rows = read(artifacts.TRAINING, self.schema)
                parts = ((rows.only(fold.training), rows.only(fold.validation)) for fold in self.folds)
                found = [(self._losses(*part, params, model), self._weights(part[1])) for part in parts]
            losses = np.concatenate([losses for losses, _ in found])
            weights = [each for _, each in found if each is not None]
        except InputError as error:  # a setting that `fit` refuses is a failed trial
            return Outcome(None, str(error))
        loss = average(losses, np.concatenate(weights) if weights else None)
        return Outcome(loss) if np.isfinite(loss) else Outcome(None, "the loss is infinite or missing")

    def _weights(self, rows: Rows) -> Floats | None:
        name = self.params.task.weight
        return None if name is None else row_weights(rows.column(name).to_frame(), name)

    def _losses(self, training: Rows, validation: Rows, params: Params, model: Model) -> Floats:
        classes, task = self.schema.classes, params.task
        fitted: Any = fit_checked(model, training, params, classes)
        refuse_rare_tokens(fitted, training, self.schema, params.train.minimum_value_rows)  # as `train` does
        predict = fitted.predict if classes is None else fitted.predict_proba
        try:
            answers = [np.asarray(predict(part), dtype=np.float32).reshape(len(part), -1) for part in validation]
        except Exception as error:  # code of the fork's owner may raise any exception
            raise InputError(f"the fitted model cannot predict ({type(error).__name__})") from error
        if not all(np.isfinite(each).all() for each in answers):  # the error rate of such answers would be finite
            raise InputError("the fitted model predicts infinite or missing values")
        decision = classes and decide(lambda rows: fit(model, rows, params), training, classes, task, model)
        measure = measure_of(task, model, classes)
        rows = pd.concat([*validation], ignore_index=True) if measure.own else pd.DataFrame()
        truth = validation.column(model.TARGET)
        known = truth if classes is None else pd.Index(classes).get_indexer(truth.astype(str))
        return measure.losses(
            np.asarray(known, dtype=np.float64), np.concatenate(answers).astype(np.float64), rows, decision or None
        )


def run(params: Params, engine: Engine, announce: Callable[[int, Trial], None]) -> Search:
    """Run the trials that are not finished yet, and return the search.

    `announce` is called with the number and the result of each trial, even if an earlier run has finished the trial.
    Raises InputError if `tune` is not set, or if another search is running. Raises CheckFailed if every trial fails.
    """
    rules = params.tune
    if rules is None:
        raise InputError("params.yaml has no section `tune`; add one as docs/tune.md describes.")
    name, objective = search_name(params, rules), _objective(params, rules)
    STORAGE.parent.mkdir(parents=True, exist_ok=True)
    with atomic.locked(STORAGE.parent) as is_free:
        if not is_free:
            raise InputError(f"Another search writes to {STORAGE}; wait for its end.")
        storage = SearchStorage(STORAGE, name, rules)
        current = _current(params, rules, objective, storage)
        trials = []
        for number, trial in enumerate(islice(_trials(objective, storage, rules, engine), rules.trials)):
            announce(number, trial)
            trials.append(trial)
    search = Search(name, params.task.loss, current, tuple(trials))
    if search.best.outcome.loss is None:
        raise CheckFailed(f"All {len(trials)} trials failed, and the last one because {trials[-1].outcome.error}")
    return search


def with_settings(params: Params, settings: Mapping[str, Any]) -> Params:
    """Return the parameters with new values in `train.settings`. A nested setting has a name such as `a.b`."""
    changed = params.model_copy(deep=True)
    for name, value in settings.items():
        place, last = _place(changed, name)
        place[last] = value
    return changed


def settings_of(params: Params, rules: Tune) -> dict[str, Any]:
    """Return the values that the searched settings have in params.yaml."""
    places = {name: _place(params, name) for name in rules.settings}
    return {name: place[last] for name, (place, last) in places.items()}


def _place(params: Params, name: str) -> tuple[dict[str, Any], str]:
    """Return the innermost dictionary that contains a setting, and the key of the setting in it."""
    *outer, last = name.split(".")
    return reduce(getitem, outer, params.train.settings), last


def search_name(params: Params, rules: Tune) -> str:
    """Return a hash of everything that the losses depend on: training rows, code and parameters.

    The hash does not depend on the number of trials or on the present values of the searched settings. You can
    therefore continue a search with more trials, even after you copied its best settings to params.yaml.
    """
    searched = with_settings(params, dict.fromkeys(rules.settings))
    hashed = blake2b(digest_size=16)
    for part in (
        searched.model_dump_json(include={"task", "split", "train"}).encode(),
        rules.model_dump_json(exclude={"trials"}).encode(),
        *(path.read_bytes() for path in (*sorted(CODE.rglob("*.py")), PACKAGES) if path.is_file()),
        _digest(artifacts.TRAINING),
    ):
        hashed.update(len(part).to_bytes(8, "little") + part)
    return hashed.hexdigest()


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file_digest(file, blake2b).digest()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run `dvc repro split`.") from None


def _objective(params: Params, rules: Tune) -> Objective:
    model = load_model()
    classes = classes_of(model, params.task)
    measure_of(params.task, model, classes)  # otherwise, an error in `task` would fail each trial after its fit
    schema = describe(model, params.task.kind, classes, params.train.unknown_fields)
    group = params.split.column if params.split.by_group else None
    rows = read_table(artifacts.TRAINING, [name for name in (ROW_ID, model.TIME, group) if name is not None])
    return Objective(params, schema, make_folds(rows, params.split, model, rules.folds))


def _current(params: Params, rules: Tune, objective: Objective, storage: SearchStorage) -> Trial:
    settings = settings_of(params, rules)
    if outcome := storage.current(settings):
        return Trial(settings, outcome)
    trial = Trial(settings, objective(settings))
    storage.set_current(trial)
    return trial


def _trials(objective: Objective, storage: SearchStorage, rules: Tune, engine: Engine) -> Iterator[Trial]:
    """Yield the finished trials, and then the new trials.

    The settings of a batch are chosen before its first trial runs.
    """
    finished = storage.finished()
    yield from finished
    for start in range(len(finished) // rules.batch * rules.batch, rules.trials, rules.batch):
        chosen = storage.choose(finished[:start], min(rules.batch, rules.trials - start))[len(finished) - start :]
        for settings, outcome in zip(chosen, run_each(engine, objective, chosen), strict=True):
            trial = Trial(settings, outcome)
            storage.add(trial)
            finished.append(trial)
            yield trial
