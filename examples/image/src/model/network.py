"""A convolutional network of PyTorch, which reads the photo and the ink of its rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Network(nn.Module):
    """Two convolutions of the photo, and one layer that also reads the ink."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes_ = classes
        first = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        second = nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.photo = nn.Sequential(*first, *second, nn.Flatten())
        self.digit = nn.Linear(16 * 2 * 2 + 8, len(classes))

    def scores(self, photo: Tensor, ink: Tensor) -> Tensor:
        """Return scores, a tensor of shape [rows, classes]. `photo` has the shape [rows, height, width, channels]."""
        pixels = photo.permute(0, 3, 1, 2).float() / 255
        return self.digit(torch.cat([self.photo(pixels), ink], dim=1))

    def forward(self, photo: Tensor, ink: Tensor) -> Tensor:
        return torch.softmax(self.scores(photo, ink), dim=1)

    def learn(self, features: pd.DataFrame, target: "pd.Series[str]", epochs: int, batch: int, rate: float) -> None:
        """Minimise the log loss."""
        photo, ink = as_tensors(features)
        truth = torch.tensor(np.searchsorted(self.classes_, target))
        optimizer = torch.optim.Adam(self.parameters(), rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(truth)).split(batch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(self.scores(photo[rows], ink[rows]), truth[rows]).backward()
                optimizer.step()

    @torch.no_grad()
    def predict_proba(self, features: pd.DataFrame) -> NDArray[Any]:
        return self(*as_tensors(features)).numpy()

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph for any number of rows. It has an input for each column, with the name of the column."""
        rows = {0: torch.export.Dim("rows")}
        return torch.onnx.export(
            self.eval(),
            (torch.zeros(2, 8, 8, 1, dtype=torch.uint8), torch.zeros(2, 8)),
            input_names=["photo", "ink"],
            dynamic_shapes=(rows, rows),
            opset_version=21,
            verbose=False,
        ).model_proto


def as_tensors(features: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """Return the photos, uint8 of shape [rows, 8, 8, 1], and the ink, float32 of shape [rows, 8]."""
    return torch.tensor(np.stack([*features["photo"]])), torch.tensor(np.stack([*features["ink"]]))
