"""The verb that searches for better settings of the model."""

import difflib

from rich.markup import escape

from slipway import artifacts, atomic
from slipway.cli.terminal import EXIT_CODES, app, engine_of, out, read_params, say
from slipway.config import replace_settings


@app.command(epilog=EXIT_CODES)
def tune() -> None:
    """Search for better values of train.settings in params.yaml. The section `tune` defines the search.

    Reads build/split/training.parquet and src/model/, and never the holdout. Fits and compares models on folds of the
    training rows. Writes the finished trials to build/tune/, and an MLflow run to MLFLOW_TRACKING_URI (default: the
    file mlflow.db in the repository). If the best trial has a lower loss than the settings in params.yaml, writes the
    settings of this trial to params.yaml. After an interruption, the next run continues the search. Exits 0 if no trial
    is better, and 1 if every trial fails.
    """
    from slipway.integrations.search_storage import Trial
    from slipway.pipeline import tune as step
    from slipway.release import registry

    def announce(number: int, trial: Trial) -> None:
        settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
        result = f"failed: {trial.outcome.error}" if trial.outcome.loss is None else f"{trial.outcome.loss:,.6g}"
        say("tune", escape(f"trial {number}: {settings}: {result}"))

    params = read_params()
    search = step.run(params, engine_of(params), announce)
    loss, current = search.loss.replace("_", " "), search.current.outcome.loss
    now = "cannot be fitted" if current is None else f"has {current:,.6g}"
    say("tune", escape(f"the best {loss} is {search.best.outcome.loss:,.6g}, and params.yaml {now}"))
    if search.is_better:
        before = artifacts.PARAMS.read_text(encoding="utf-8")
        after = replace_settings(before, search.best.settings)
        atomic.write_text(artifacts.PARAMS, after)
        names = (f"a/{artifacts.PARAMS}", f"b/{artifacts.PARAMS}")
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="")
        out.print(escape("\n".join(lines)))
    else:
        say("tune", "no trial is better, so params.yaml is unchanged")
    recorded = registry.record_search(params, search)
    say("tune", f"run {recorded.run_id} in MLflow has the search")
