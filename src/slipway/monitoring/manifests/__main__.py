"""Run `python -m slipway.monitoring.manifests [FOLDER]`. The default folder is kustomize/components."""

import sys
from pathlib import Path

from slipway.errors import SlipwayError
from slipway.monitoring.manifests import COMPONENTS, compile_to

folder = Path(sys.argv[1]) if sys.argv[1:] else COMPONENTS
try:
    compile_to(folder)
except SlipwayError as error:
    sys.exit(f"slipway: {error}")
sys.stdout.write(f"{folder} is up to date\n")
