"""Fit a logistic regression on the pixels of the photo and on the ink of its rows, and write its graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression


class Digits:
    def __init__(self, fitted: LogisticRegression) -> None:
        self.fitted = fitted
        self.classes_ = fitted.classes_

    def predict_proba(self, features: pd.DataFrame) -> Any:
        return self.fitted.predict_proba(as_matrix(features))

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph. It has an input for each image and each vector, with the name of the column."""
        nodes = [
            helper.make_node("Cast", ["photo"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
            helper.make_node("Div", ["flat", "white"], ["shades"]),
            helper.make_node("Concat", ["shades", "ink"], ["all"], axis=1),
            helper.make_node("Gemm", ["all", "weights", "bias"], ["scores"], transB=1),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ]
        inputs = [
            helper.make_tensor_value_info("photo", TensorProto.UINT8, [None, 8, 8, 1]),
            helper.make_tensor_value_info("ink", TensorProto.FLOAT, [None, 8]),
        ]
        outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(self.classes_)])]
        constants = {"white": 255, "weights": self.fitted.coef_, "bias": self.fitted.intercept_}
        tensors = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, "digits", inputs, outputs, tensors)
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def as_matrix(features: pd.DataFrame) -> Any:
    photos = np.stack([*features["photo"]]).reshape(len(features), -1) / np.float32(255)
    return np.hstack([photos, np.stack([*features["ink"]])])


def fit(features: pd.DataFrame, target: "pd.Series[str]", settings: Mapping[str, Any], seed: int) -> Digits:
    """Fit with `train.settings` of params.yaml, which has arguments of LogisticRegression."""
    return Digits(LogisticRegression(random_state=seed, **settings).fit(as_matrix(features), target))
