"""Score files: `python -m slipway.scoring BUNDLE INPUT OUTPUT`, the command of the batch image."""

import argparse
import os
import signal
import sys
import traceback
from pathlib import Path

from slipway.errors import SlipwayError, disk_errors

KILLED = 128 + signal.SIGTERM


def main() -> None:
    """Score the input with the bundle. The exit codes are the same as for `slipway score`."""
    # Without this handler, the first process of a container ignores SIGTERM. The next run resumes the work.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(KILLED))
    from slipway.integrations.compute import Engine
    from slipway.scoring.score import check, run

    parser = argparse.ArgumentParser(prog="slipway.scoring", description="Score files with a bundle.")
    parser.add_argument("bundle", type=Path, help="Directory of a bundle.")
    parser.add_argument("input", help="Path or URL of a CSV or Parquet file, or of a folder of files.")
    parser.add_argument("output", help="Path or URL of the folder for the results.")
    parser.add_argument("--keep", action="append", default=[], help="Column to copy to the answers. Can be repeated.")
    parser.add_argument("--dask", metavar="ADDRESS", help="Dask scheduler, such as tcp://model-dask:8786.")
    given = parser.parse_args()
    try:
        with disk_errors():
            summary = run(
                given.bundle, given.input, given.output, tuple(given.keep), _print, Engine(address=given.dask)
            )
        _print("summary", f"{summary.answered:,} of {summary.rows:,} rows scored with {summary.bundle}")
        check(summary)
    except SlipwayError as error:
        print(f"slipway: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:  # the message of an unexpected error can quote a value of a row
        where = "".join(traceback.format_tb(error.__traceback__))
        print(f"{where}slipway: unexpected {type(error).__name__}; please report it.", file=sys.stderr)
        sys.exit(2)


def _print(what: str, text: str) -> None:
    print(f"{what}: {text}", flush=True)


if __name__ == "__main__":
    main()
