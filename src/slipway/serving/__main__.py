"""`python -m slipway.serving BUNDLE`: what the image runs. It needs nothing that only the other rooms have."""

import os
import signal
import sys
from pathlib import Path

from slipway.errors import SlipwayError

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would only take memory


def main() -> None:
    """Serve the bundle that the first argument names, with the settings of the environment."""
    # The first process of a container ignores a signal that it does not handle; the server has its own handler later.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from slipway.serving.server import serve
    from slipway.serving.settings import read_settings

    if len(sys.argv) != 2:
        sys.exit("slipway: Name one bundle: `python -m slipway.serving BUNDLE`.")
    provenance = os.environ.get("SLIPWAY_PROVENANCE")
    try:
        serve(Path(sys.argv[1]), read_settings(os.environ), Path(provenance) if provenance else None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is about to end
    except SlipwayError as error:
        print(f"slipway: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
