"""The verbs of the pipeline: one verb for each stage that `dvc repro` runs, and `slipway verdict`."""

import typer
from rich.markup import escape

from slipway import artifacts
from slipway.artifacts import Verdict, listed
from slipway.cli.terminal import EXIT_CODES, app, engine_of, out, read_params, say, say_reasons, today
from slipway.config import Params
from slipway.contract import Model, load_model
from slipway.integrations.compute import joblib_on


def _inputs() -> tuple[Params, Model]:
    """Read params.yaml and src/model. Raises InputError if a slice in params.yaml does not fit the model's columns."""
    from slipway.pipeline.slices import check_rules

    params, model = read_params(), load_model()
    check_rules(params.evaluate.slices, model)  # `evaluate` uses the slices, but only after the model is fitted
    return params, model


@app.command(epilog=EXIT_CODES)
def validate() -> None:
    """Validate every row of data/ with the model's schema.

    Reads data/ and src/model/schema.py. Writes the accepted rows to build/validated.parquet, the rejected rows with
    their reasons to build/quarantine.csv, and the numbers of rows to build/validation.json. Exits 1 if the share of
    rejected rows in a delivery is above validate.max_invalid_share in params.yaml.
    """
    from slipway.pipeline import validate as stage

    params, model = _inputs()
    result = stage.run(params, model, today(), engine_of(params))
    say("validate", f"{result.accepted:,} rows accepted, {result.quarantined:,} quarantined")
    say_reasons(result.reasons)
    for note, names in result.deliveries_by_note.items():
        say("", f"{escape(listed(names))}: {escape(note)}")
    for path, reason in result.not_taken.items():
        say("", f"{escape(path)} is not taken, because {escape(reason)}")


@app.command(epilog=EXIT_CODES)
def split() -> None:
    """Split the validated rows into training rows and the holdout, as the section `split` of params.yaml defines.

    Reads build/validated.parquet. Writes build/split/training.parquet and build/split/holdout.parquet.
    """
    from slipway.pipeline import split as stage

    training, holdout = stage.run(*_inputs())
    say("split", f"{training:,} rows for training, {holdout:,} held out")


@app.command(epilog=EXIT_CODES)
def train() -> None:
    """Fit the model, export it to ONNX, and check that the fitted and the exported model give the same predictions.

    Reads build/split/ and src/model/. Writes build/bundle/ and build/parity.json. Exits 1 if a prediction of the
    exported model differs from the fitted model's by more than train.parity_tolerance. Also exits 1 if a second fit
    with the same arguments gives another model.
    """
    from slipway.pipeline import train as stage
    from slipway.pipeline.tensors import unenforced_checks

    params, model = _inputs()
    with joblib_on(engine_of(params)):  # for `n_jobs` in `fit`
        parity = stage.run(params, model)
    say(
        "train",
        f"exported graph agrees with the fitted model on {parity.rows:,} rows "
        f"(largest relative difference {parity.largest_relative_difference:.1e}, "
        f"{parity.rows_beyond_tolerance} beyond {parity.tolerance:g})",
    )
    for sentence in unenforced_checks(model):
        say("", f"[yellow]{escape(sentence)}[/]")


@app.command(epilog=EXIT_CODES)
def evaluate() -> None:
    """Evaluate the champion (the model in production) and the challenger (the new model) on the same holdout rows.

    Reads build/bundle/, champion/, metrics/release.json and build/split/. Writes metrics/evaluation.json and
    build/latency.json. Writes the predictions and losses of each row, and the data of the plots, to build/evaluation/.
    Exits 1 if champion/ does not contain the released bundle, or if the challenger was trained on a row of the holdout.
    Also exits 1 if the champion was trained on all rows of the holdout.
    """
    from slipway.pipeline import evaluate as stage

    params, model = _inputs()
    result = stage.run(params, model, engine_of(params))
    losses = {"champion": result.champion, "challenger": result.challenger, "baseline": result.baseline}
    text = ", ".join(f"{name} {each.loss:,.6g}" for name, each in losses.items() if each)
    say("evaluate", f"{result.loss.replace('_', ' ')} on {result.holdout.rows:,} rows: {text}")


@app.command(epilog=EXIT_CODES)
def gate() -> None:
    """Run the statistical test that decides whether the challenger ships.

    Reads build/evaluation/scores.parquet, metrics/evaluation.json and metrics/release.json. Writes
    metrics/verdict.json. Exits 0 for every verdict. To exit 1 for `hold`, use `slipway verdict`.
    """
    from slipway.pipeline import gate as stage

    _print_verdict(stage.run(read_params()))


@app.command(epilog=EXIT_CODES)
def verdict() -> None:
    """Print the verdict, its reason, and the metrics of the champion and the challenger.

    Reads metrics/verdict.json and metrics/evaluation.json. Exits 1 if the verdict is `hold`, and 0 for any other
    verdict.
    """
    from slipway.cli.verdict_table import verdict_table

    decided = Verdict.read(artifacts.VERDICT)
    _print_verdict(decided)
    out.print(verdict_table(decided, artifacts.Evaluation.read(artifacts.EVALUATION)))
    if decided.verdict == "hold":
        raise typer.Exit(1)


def _print_verdict(decided: Verdict) -> None:
    color = {"ship": "green", "first": "green", "hold": "red", "unchanged": "cyan"}[decided.verdict]
    say("verdict", f"[bold {color}]{decided.verdict.upper()}[/]: {escape(decided.reason)}")
