"""One row is one tumour."""

import pandera.pandas as pa
from sklearn.datasets import load_breast_cancer

FEATURES = tuple(name.replace(" ", "_") for name in load_breast_cancer().feature_names)
KEY = ("sample",)
TIME = None
TARGET = "diagnosis"
SCHEMA = pa.DataFrameSchema(
    {
        "sample": pa.Column(str),
        TARGET: pa.Column(str, pa.Check.isin(["malignant", "benign"])),
        **{name: pa.Column(float, pa.Check.ge(0)) for name in FEATURES},
    }
)
