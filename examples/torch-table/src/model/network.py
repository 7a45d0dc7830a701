"""A neural network of PyTorch on encoded columns."""

from collections.abc import Callable
from typing import Any

import onnx
import pandas as pd
import torch
from numpy.typing import NDArray
from onnx import compose
from sklearn.compose import ColumnTransformer
from torch import Tensor, nn


class Network(nn.Module):
    """Two hidden layers, which read the columns of a fitted encoder. Predictions are multiplied by `scale`."""

    def __init__(self, encoder: ColumnTransformer, hidden: int, scale: float) -> None:
        super().__init__()
        self.encoder, self.scale = encoder, scale
        self.width = len(encoder.get_feature_names_out())
        layers = nn.Linear(self.width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        self.layers = nn.Sequential(*layers)

    def forward(self, encoded: Tensor) -> Tensor:
        return self.layers(encoded) * self.scale

    def encode(self, features: pd.DataFrame) -> Tensor:
        return torch.tensor(self.encoder.transform(features), dtype=torch.float32)

    def learn(self, features: pd.DataFrame, target: "pd.Series[float]", epochs: int, batch: int, rate: float) -> None:
        """Minimise the mean absolute error."""
        encoded, truth = self.encode(features), torch.tensor(target.to_numpy("float32")).reshape(-1, 1)
        optimizer = torch.optim.Adam(self.parameters(), rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(encoded)).split(batch):
                optimizer.zero_grad()
                (nn.functional.l1_loss(self(encoded[rows]), truth[rows]) / self.scale).backward()
                optimizer.step()

    @torch.no_grad()
    def predict(self, features: pd.DataFrame) -> NDArray[Any]:
        return self(self.encode(features)).numpy()

    def to_onnx(self, export: Callable[[Any], onnx.ModelProto]) -> onnx.ModelProto:
        """Return the graph of the encoder, followed by the graph of the network. Both take any number of rows."""
        program = torch.onnx.export(
            self.eval(),
            (torch.zeros(2, self.width),),
            input_names=["encoded"],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            opset_version=21,
            verbose=False,
        )
        encoder = export(self.encoder)
        return compose.merge_models(encoder, program.model_proto, [("prediction", "encoded")], prefix2="network/")
