"""The command `slipway`: one verb per step. People, the Makefile and the workflows call only these verbs."""

import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from slipway import artifacts
from slipway.artifacts import Verdict
from slipway.config import Params, load_params
from slipway.contract import Model, load_model
from slipway.errors import SlipwayError
from slipway.review.report import REPORT

EXIT_CODES = "Exit codes: 0 done, 1 a check or verdict said no, 2 bad input."

app = typer.Typer(
    help=f"Ship machine-learning models by merging pull requests. Run it at the top of the repository.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Base = Annotated[
    str | None,
    typer.Option(envvar="SLIPWAY_BASE", help="What the change is compared with. Default: origin/main, or main."),
]
image = typer.Typer(help="The image: a bundle with its server, for a cluster.", no_args_is_help=True)
app.add_typer(image, name="image")
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@app.callback()
def options(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    """Options of every verb come before it."""
    # `main` reads --debug from the command line, because it has to work for errors raised here too.


@app.command(epilog=EXIT_CODES)
def validate() -> None:
    """Hold every row of data/ against the model's schema.

    Reads data/, src/model/schema.py. Writes build/validated.parquet, build/quarantine.csv (rows at fault, each with its
    reasons) and build/validation.json (counts). Exits 1 if a delivery has more rows at fault than
    validate.most_at_fault.
    """
    from slipway.pipeline import validate as stage

    result = stage.run(_params(), _model(), _today())
    _say("validate", f"{result.accepted:,} rows accepted, {result.quarantined:,} quarantined")
    for reason, rows in result.reasons.items():
        _say("", f"[dim]{rows:,} rows: {escape(reason)}[/]")


@app.command(epilog=EXIT_CODES)
def split() -> None:
    """Split the validated rows into training and holdout.

    Reads build/validated.parquet. Writes build/split/training.parquet and build/split/holdout.parquet.
    """
    from slipway.pipeline import split as stage

    training, holdout = stage.run(_params(), _model())
    _say("split", f"{training:,} rows to train on, {holdout:,} held out")


@app.command(epilog=EXIT_CODES)
def train() -> None:
    """Fit the model, export it to ONNX, and prove that both agree.

    Reads build/split/, src/model/. Writes build/bundle/ and build/parity.json. Exits 1 if the exported graph
    differs from the fitted model on any row by more than train.parity_tolerance.
    """
    from slipway.pipeline import train as stage

    parity = stage.run(_params(), _model())
    _say(
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

    result = stage.run(_params(), _model())
    losses = {"champion": result.champion, "challenger": result.challenger, "baseline": result.baseline}
    text = ", ".join(f"{name} {each.loss:,.6g}" for name, each in losses.items() if each)
    _say("evaluate", f"{result.loss.replace('_', ' ')} on {result.holdout.rows:,} rows: {text}")


@app.command(epilog=EXIT_CODES)
def gate() -> None:
    """Judge whether the challenger ships.

    Reads build/evaluation/scores.parquet, metrics/evaluation.json, metrics/release.json. Writes metrics/verdict.json.
    Exits 0 whatever the verdict is, so that the pipeline can record it; `slipway verdict` exits by it.
    """
    from slipway.pipeline import gate as stage

    _print_verdict(stage.run(_params()))


@app.command(epilog=EXIT_CODES)
def verdict() -> None:
    """Say what the gate decided, and why.

    Reads metrics/verdict.json, metrics/evaluation.json. Exits 1 on `hold`.
    """
    from slipway.summary import verdict_table

    decided = Verdict.read(artifacts.VERDICT)
    _print_verdict(decided)
    out.print(verdict_table(decided, artifacts.Evaluation.read(artifacts.EVALUATION)))
    if decided.verdict == "hold":
        raise typer.Exit(1)


@app.command(epilog=EXIT_CODES)
def changes(base: Base = None) -> None:
    """Say which jobs of a pull request have work to do.

    Reads git, dvc.yaml. Writes `test=true` and the like to the file that GITHUB_OUTPUT names, if there is one.
    """
    from slipway.review import changes as step

    changed = step.run(base, os.environ)
    for job in step.JOBS:
        _say(job, "has work" if getattr(changed, job) else "nothing that it depends on has changed")


@app.command(epilog=EXIT_CODES)
def judge(base: Base = None) -> None:
    """Run the pipeline as a pull request does, whatever the change says of itself.

    Reads the stages that the base knows, and what has changed since. Writes what the pipeline writes, and dvc.lock;
    where it stops, build/stopped.json. Exits 1 if there is no verdict, or if the change is a release's (champion.dvc).
    """
    from slipway.review import judge as step

    step.judge(base)


@app.command(epilog=EXIT_CODES)
def report(base: Base = None) -> None:
    """Write what a reviewer decides from.

    Reads what the pipeline wrote, git, DVC; in a workflow, the event. Writes build/report/: report.json, report.md,
    report.html and the charts; in a workflow, the summary of the job too.
    """
    from slipway.review import write

    folder = write.write(base, os.environ)
    _say("report", f"{folder}/report.html, and report.md beside it")


@app.command(epilog=EXIT_CODES)
def comment(
    folder: Annotated[Path, typer.Argument(help="Where the report of the run lies; nothing in it is trusted.")],
) -> None:
    """Post the report of a run on its pull request, as one comment that is updated.

    Reads report.json in the folder, the event `workflow_run`, GITHUB_TOKEN; CML posts, or else GitHub's API. Writes the
    comment, and the charts to the branch `reports`. Exits 1 if the report is not of the pull request that it names, or
    if it could not be posted.
    """
    from slipway.review.comment import post

    posted = post(folder, os.environ)
    for warning in posted.warnings:
        _say("warning", escape(warning))
    _say("comment", escape(" ".join(filter(None, (posted.words, posted.address)))))


@app.command(epilog=EXIT_CODES)
def may_merge(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="The report of this run.")] = REPORT,
) -> None:
    """The required check: say whether what was judged may be merged.

    Reads NEEDS (the results of the other jobs), the report, the event. Writes nothing. Exits 1, and says what to do, if
    a job failed, if there is no verdict on this commit, or if the model is held and no maintainer has overruled that.
    """
    from slipway.review.required import check

    _say("pass", escape(check(os.environ, path)))


@app.command(epilog=EXIT_CODES)
def record() -> None:
    """Record the judged bundle in MLflow.

    Reads build/bundle/, metrics/, build/*.json. Writes one run to MLFLOW_TRACKING_URI (default: mlflow.db here);
    a bundle that has a run is not recorded again.
    """
    from slipway.release import registry

    recorded = registry.record(_params())
    _say("record", f"run {recorded.run_id} {'has this bundle already' if recorded.already else 'written'}")


@app.command(epilog=EXIT_CODES)
def crown() -> None:
    """Make the judged challenger the champion.

    Reads build/bundle/, metrics/verdict.json. Writes champion/, champion.dvc and metrics/release.json. Exits 1 unless
    the verdict on this bundle is `ship` or `first`.
    """
    from slipway.release import champion

    release = champion.crown()
    _say("crown", f"{release.champion} is the champion; now `dvc repro`, `dvc push`, and commit")


@app.command(epilog=EXIT_CODES)
def serve(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")] = artifacts.CHAMPION,
    host: Annotated[str | None, typer.Option(help="Default: SLIPWAY_HOST, or this machine only.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: SLIPWAY_PORT, or 8080.")] = None,
) -> None:
    """Answer over HTTP with a bundle, as the image does.

    Reads the bundle and the variables SLIPWAY_* of the environment (`slipway.serving.settings`). Writes JSON lines to
    the standard output. SIGTERM drains it; it exits 0.
    """
    from slipway.serving.server import serve as run
    from slipway.serving.settings import read_settings

    settings = read_settings(os.environ)
    given = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    run(bundle, settings.model_copy(update=given))


@image.command(epilog=EXIT_CODES)
def build(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")] = artifacts.CHAMPION,
    name: Annotated[str, typer.Option(help="Where it would be pushed to.")] = "slipway",
    tag: Annotated[str | None, typer.Option(help="Default: sha- and 12 digits of the commit.")] = None,
    base: Annotated[str | None, typer.Option(help="Default: BASE in the Dockerfile.")] = None,
    build_base: Annotated[str | None, typer.Option(help="Default: BUILD_BASE in the Dockerfile.")] = None,
) -> None:
    """Build the image of a bundle, with Docker or Podman.

    Reads the bundle, the last commit, champion.dvc, dvc.lock; DOCKER_HOST, and the PIP_* variables that name a mirror.
    Writes the image into the engine, labelled with its lineage, and build/image.tar, which it is made from. Exits 1 if
    what goes into it is not as in the last commit.
    """
    from slipway.release import image as release

    bases = {name: value for name, value in {"BASE": base, "BUILD_BASE": build_base}.items() if value}
    built = release.build(bundle, name, tag, bases)
    _say("image", f"{built.name} built: {built.bytes / 1e6:,.0f} MB with its base, bundle {built.lineage.bundle:.12}")


@image.command(epilog=EXIT_CODES)
def smoke(
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="As `slipway image build` names it.")],
    bundle: Annotated[Path | None, typer.Option(help="Demand this bundle. Default: what the image has.")] = None,
) -> None:
    """Try an image as the cluster will run it.

    Reads the image from the engine that DOCKER_HOST names; runs it read-only, without capabilities, as some user.
    Writes nothing. Exits 1 at the first check that fails: start, user, lineage, golden rows, no dropped request.
    """
    from slipway.release.smoke import smoke as checks

    for passed in checks(name, bundle):
        _say("smoke", escape(passed))


@app.command(epilog=EXIT_CODES)
def ingest(
    name: Annotated[str | None, typer.Argument(help="The delivery; default: the oldest new one.")] = None,
) -> None:
    """Take in a delivery from the source.

    Reads ingest.source of params.yaml. Writes the delivery to data/, whole or not at all, and data.dvc. Exits 1 if the
    delivery is not fit to be used or changed after it was taken in; 0 with nothing written if there is none.
    """
    from slipway.watch.arrival import ingest as take_in

    arrival = take_in(_params(), _model(), _today(), name=name)
    if arrival is None:
        _say("ingest", "the source has no new delivery")
    else:
        counts = arrival.counts
        _say(
            "ingest", f"{arrival.name} taken in: {counts.accepted:,} rows accepted, {counts.quarantined:,} quarantined"
        )


@app.command(epilog=EXIT_CODES)
def demo() -> None:
    """Play the loop on a scratch clone of the last commit.

    Reads this repository's last commit. Writes build/demo/ only.
    """
    from slipway.demo import play

    play.play(out)


def main() -> None:
    """Run a verb; an error that a person can cause ends it with one sentence."""
    try:
        app(standalone_mode=True)
    except SlipwayError as error:
        if "--debug" in sys.argv:
            raise
        err.print(f"[red]slipway:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
    except Exception as error:  # a mistake of ours; even so, exit code 1 must mean that a check said no
        if "--debug" in sys.argv:
            raise
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        err.print(f"[red]slipway:[/] unexpected {escape(words)}; `slipway --debug` shows where, please report it.")
        sys.exit(2)


def _params() -> Params:
    return load_params(artifacts.PARAMS)


def _model() -> Model:
    return load_model()


def _today() -> date:
    return datetime.now(UTC).date()


def _say(step: str, text: str) -> None:
    out.print(f"[bold]{step:>9}[/]  {text}")


def _print_verdict(decided: Verdict) -> None:
    color = {"ship": "green", "first": "green", "hold": "red", "unchanged": "cyan"}[decided.verdict]
    _say("verdict", f"[bold {color}]{decided.verdict.upper()}[/]: {escape(decided.reason)}")
