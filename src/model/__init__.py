"""The model that this repository ships. A fork replaces this package and nothing else in `src/`.

`slipway.contract.Model` describes every name that this package must define.
"""

from model.features import FEATURES
from model.schema import KEY, SCHEMA, TARGET, TIME
from model.train import fit

__all__ = ["FEATURES", "KEY", "SCHEMA", "TARGET", "TIME", "fit"]
