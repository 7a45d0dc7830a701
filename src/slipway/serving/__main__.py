"""Serve a bundle: `python -m slipway.serving BUNDLE`. The container image runs this command."""

import os
import signal
import sys
from pathlib import Path

from slipway.errors import SlipwayError

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads would use memory and save no time


def main() -> None:
    """Serve the bundle in the first argument, with settings from the environment."""
    # Without this handler, the first process of a container ignores SIGTERM. The server installs its own handler later.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from slipway.serving.server import serve
    from slipway.serving.settings import read_settings

    if len(sys.argv) != 2:
        sys.exit("slipway: Name one bundle: `python -m slipway.serving BUNDLE`.")
    provenance = os.environ.get("SLIPWAY_PROVENANCE")
    try:
        serve(Path(sys.argv[1]), read_settings(os.environ), Path(provenance) if provenance else None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server has stopped, so the process ends by itself
    except SlipwayError as error:
        print(f"slipway: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
