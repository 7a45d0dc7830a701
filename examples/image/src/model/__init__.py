"""Read a handwritten digit from a scan."""

from model.features import FEATURES
from model.schema import EXAMPLES, KEY, SCHEMA, TARGET, TIME
from model.train import fit

__all__ = ["EXAMPLES", "FEATURES", "KEY", "SCHEMA", "TARGET", "TIME", "fit"]
