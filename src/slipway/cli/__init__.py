"""The command `slipway`. A verb, such as `slipway ingest`, does one step. The Makefile and the workflows call verbs."""

import os
import platform
import sys
import traceback
from pathlib import Path
from typing import Annotated

# numpy, BLAS and PyTorch choose their code by the processor. With these variables, they use the code for AVX2 on every
# x86 processor, so that training gives the same bytes everywhere. The variables must be set before numpy is imported.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL AVX512_SPR")
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    os.environ.setdefault("MKL_CBWR", "AVX2")
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import typer
from rich.markup import escape

from slipway.cli import (
    doctor,
    image,
    init,
    monitoring,
    pipeline,
    prediction_log,
    release,
    review,
    scoring,
    serving,
    tune,
    update,
)
from slipway.cli.terminal import app, enter_repository, err
from slipway.errors import SlipwayError, disk_errors

PACKAGES = (pipeline, tune, review, release, image, serving, scoring, prediction_log, monitoring, init, update, doctor)
app.registered_commands.sort(
    key=lambda verb: [package.__name__ for package in PACKAGES].index(verb.callback.__module__)
)


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(help="Print the traceback of an error.")] = False,  # noqa: ARG001
) -> None:
    """Change to the top of the repository before a verb runs.

    `main` handles the option --debug, so that the option also works for an error in this function.
    """
    context.obj = enter_repository(context.invoked_subcommand)


def _summary(error: Exception) -> str:
    """Return the type of an unexpected error and its place, because its message can quote a value of a row.

    The messages of import errors and of errors of the operating system are safe.
    """
    name = type(error).__name__
    if isinstance(error, OSError | ImportError):
        return f"{name}: {error}".splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if {"slipway", "model"} & {*Path(frame.filename).parts[-4:-1]}]
    last = (own or frames)[-1]
    return f"{name} in {Path(last.filename).name}, line {last.lineno}"


def main() -> None:
    """Run a verb. If the verb fails, print one sentence instead of a traceback, unless --debug is set."""
    try:
        with disk_errors():
            app(standalone_mode=True)
    except SlipwayError as error:
        if "--debug" in sys.argv:
            raise
        err.print(f"[red]slipway:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
    except Exception as error:  # a bug exits with 2, because 1 means that a check failed
        if "--debug" in sys.argv:
            raise
        err.print(
            f"[red]slipway:[/] unexpected {escape(_summary(error))}; run `slipway --debug` to see why, and please "
            "report it."
        )
        sys.exit(2)
