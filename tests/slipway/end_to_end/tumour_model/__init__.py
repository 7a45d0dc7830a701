"""A second model, to prove the seam: is a tumour malignant? Wisconsin's breast cancer data, from scikit-learn."""

from model.schema import FEATURES, KEY, SCHEMA, TARGET, TIME
from model.train import fit

__all__ = ["FEATURES", "KEY", "SCHEMA", "TARGET", "TIME", "fit"]
