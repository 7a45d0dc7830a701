"""The pipeline's verbs: one for each stage, which `dvc repro` runs, and the verdict."""

import typer
from rich.markup import escape

from slipway import artifacts
from slipway.artifacts import Verdict
from slipway.cli.terminal import EXIT_CODES, app, out, read_params, say, today
from slipway.contract import load_model


@app.command(epilog=EXIT_CODES)
def validate() -> None:
    """Hold every row of data/ against the model's schema.

    Reads data/, src/model/schema.py. Writes build/validated.parquet, build/quarantine.csv (rows at fault, each with its
    reasons) and build/validation.json (counts). Exits 1 if a delivery has more rows at fault than
    validate.max_invalid_share.
    """
    from slipway.pipeline import validate as stage

    result = stage.run(read_params(), load_model(), today())
    say("validate", f"{result.accepted:,} rows accepted, {result.quarantined:,} quarantined")
    for reason, rows in result.reasons.items():
        say("", f"[dim]{rows:,} rows: {escape(reason)}[/]")


@app.command(epilog=EXIT_CODES)
def split() -> None:
    """Split the validated rows into training and holdout.

    Reads build/validated.parquet. Writes build/split/training.parquet and build/split/holdout.parquet.
    """
    from slipway.pipeline import split as stage

    training, holdout = stage.run(read_params(), load_model())
    say("split", f"{training:,} rows to train on, {holdout:,} held out")


@app.command(epilog=EXIT_CODES)
def train() -> None:
    """Fit the model, export it to ONNX, and prove that both agree.

    Reads build/split/, src/model/. Writes build/bundle/ and build/parity.json. Exits 1 if the exported graph
    differs from the fitted model on any row by more than train.parity_tolerance.
    """
    from slipway.pipeline import train as stage

    parity = stage.run(read_params(), load_model())
    say(
        "train",
        f"exported graph agrees with the fitted model on {parity.rows:,} rows "
        f"(largest relative difference {parity.largest_relative_difference:.1e}, "
        f"{parity.rows_beyond_tolerance} beyond {parity.tolerance:g})",
    )


@app.command(epilog=EXIT_CODES)
def evaluate() -> None:
    """Score champion and challenger on the same holdout.

    Reads build/bundle/, champion/, metrics/release.json, build/split/. Writes metrics/evaluation.json,
    build/latency.json and build/evaluation/ (scores of each row, data of plots). Exits 1 if champion/ is not what was
    released, or if a model was trained on a row of the holdout.
    """
    from slipway.pipeline import evaluate as stage

    result = stage.run(read_params(), load_model())
    losses = {"champion": result.champion, "challenger": result.challenger, "baseline": result.baseline}
    text = ", ".join(f"{name} {each.loss:,.6g}" for name, each in losses.items() if each)
    say("evaluate", f"{result.loss.replace('_', ' ')} on {result.holdout.rows:,} rows: {text}")


@app.command(epilog=EXIT_CODES)
def gate() -> None:
    """Judge whether the challenger ships.

    Reads build/evaluation/scores.parquet, metrics/evaluation.json, metrics/release.json. Writes metrics/verdict.json.
    Exits 0 whatever the verdict is, so that the pipeline can record it; `slipway verdict` exits by it.
    """
    from slipway.pipeline import gate as stage

    _print_verdict(stage.run(read_params()))


@app.command(epilog=EXIT_CODES)
def verdict() -> None:
    """Say what the gate decided, and why.

    Reads metrics/verdict.json, metrics/evaluation.json. Exits 1 on `hold`.
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
