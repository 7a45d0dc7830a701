"""Use Triton with dynamic batching to serve a graph with one numeric input: `python pytriton_onnx.py PORT FOLDER`.

PyTriton contains the Triton Inference Server. Triton calls this process for each batch.
"""

import logging
import sys
from pathlib import Path

import numpy as np
from numbers_graph import load, predict
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    session = load()
    columns = session.get_inputs()[0].shape[1]

    @batch
    def infer(numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Predict the rows of many requests at once."""
        return {"prediction": np.array(predict(session, numbers), dtype=np.float32)[:, None]}

    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    options = TritonConfig(
        http_address="127.0.0.1", http_port=port, http_thread_count=1, allow_grpc=False, allow_metrics=False
    )
    with Triton(config=options, workspace=folder / str(port)) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[Tensor(name="numbers", dtype=np.float32, shape=(columns,))],
            outputs=[Tensor(name="prediction", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=16, batcher=DynamicBatcher(max_queue_delay_microseconds=1_000)),
        )
        triton.serve()
