"""Convert requests with binary tensors to JSON requests of the Open Inference Protocol.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md

A request body has a JSON part, followed by the binary data of the tensors in the order of `inputs`. The header
`Inference-Header-Content-Length` contains the size of the JSON part in bytes. The response is always JSON, because
every client of the extension can read JSON.
"""

import base64
from typing import Any

import msgspec
import numpy as np

from slipway.bundle import Column
from slipway.serving.json_body import parse
from slipway.serving.problems import Problem, pointer
from slipway.serving.protocols import Infer, PredictionProtocol
from slipway.serving.record_types import width

HEADER = b"inference-header-content-length"
SIZE = "binary_data_size"
FORMATS = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    f"{sign}INT{bits}": f"<{'u' if sign else 'i'}{bits // 8}" for sign in ("", "U") for bits in (8, 16, 32, 64)
}
"""The NumPy format of each datatype, little-endian as the extension requires."""
PREFIX = 4
"""Size in bytes of the length field that precedes each text."""


def as_json(body: bytes, length: bytes, protocol: PredictionProtocol) -> bytes:
    """Convert a request to JSON. `length` is the value of the header `Inference-Header-Content-Length`.

    Binary tensors cannot contain null. NaN becomes null. An empty text in an optional column also becomes null. Raises
    Problem if `protocol` is not the Open Inference Protocol, if the sizes do not match the body, or if a tensor has too
    many values.
    """
    if not isinstance(protocol, Infer):
        raise Problem(415, "Only the Open Inference Protocol has binary tensors; send JSON without their header.")
    if not length.isdigit() or len(length) > 10 or int(length) > len(body):
        raise Problem(
            400, "`Inference-Header-Content-Length` is not the size of the JSON part of the body; correct it."
        )
    start, records = int(length), protocol.model.records
    document = parse(body[:start])
    inputs = document.get("inputs") if isinstance(document, dict) else None
    columns = {column.name: column for column in records.columns}
    for i, tensor in enumerate(inputs if isinstance(inputs, list) else ()):
        size = _binary_size(tensor, i)
        if size is None:
            continue
        at = pointer("inputs", i, "parameters", SIZE)
        if size > len(body) - start:
            raise Problem(400, f"{at}: the body ends before the data of this tensor; correct its size.")
        content, start = body[start : start + size], start + size
        name = tensor.get("name")
        column = columns.get(name) if isinstance(name, str) else None
        tensor["data"] = _values(content, tensor.get("datatype"), column, records.most, at)
    if start != len(body):
        raise Problem(400, f"The body has {len(body) - start:,} bytes after the last tensor; correct the sizes.")
    return msgspec.json.encode(document)


def _binary_size(tensor: Any, i: int) -> int | None:
    """Return the size of a tensor's binary data, and remove it from the tensor's parameters. Return None for JSON."""
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    if not isinstance(parameters, dict) or SIZE not in parameters:
        return None
    size = parameters.pop(SIZE)
    if type(size) is not int or size < 0 or "data" in tensor:
        at = pointer("inputs", i, "parameters", SIZE)
        raise Problem(400, f"{at}: a tensor has either `data`, or a size in bytes from 0; correct it.")
    return size


def _values(content: bytes, datatype: Any, column: Column | None, most: int, at: str) -> list[Any]:
    """Decode the values of a tensor. Raises Problem if the tensor has more than `most` rows.

    The numbers of all vectors are returned as one list. `column` is None if the model has no column for the tensor.
    """
    if datatype == "BYTES":
        return _texts(content, column, most, at)
    format_ = FORMATS.get(datatype) if isinstance(datatype, str) else None
    if format_ is None:
        known = ", ".join(("BYTES", *FORMATS))
        raise Problem(422, f"{at}: binary data needs one of the datatypes {known}; send one of them.")
    size, most = np.dtype(format_).itemsize, most * (width(column) if column else 1)
    if len(content) % size or len(content) > most * size:
        raise Problem(422, f"{at}: the size must be a multiple of {size}, at most {most * size:,}; correct it.")
    if datatype == "BOOL" and content.strip(b"\0\1"):
        raise Problem(422, f"{at}: a BOOL is a byte that is 0 or 1; correct it.")
    numbers = np.frombuffer(content, format_)
    if numbers.dtype.kind == "f" and np.isinf(numbers).any():
        raise Problem(422, f"{at}: a number is infinite; send finite numbers.")
    values: list[Any] = numbers.tolist()  # msgspec writes NaN as null
    return values


def _texts(content: bytes, column: Column | None, most: int, at: str) -> list[str | None]:
    """Decode the texts of a tensor. In `content`, the length of each text precedes the text.

    The bytes of an image file become base64 text.
    """
    texts: list[str | None] = []
    is_image, empty = (column.type == "image", "" if column.required else None) if column else (False, "")
    start = 0
    while start < len(content) and len(texts) < most:
        end = start + PREFIX + int.from_bytes(content[start : start + PREFIX], "little")
        if end > len(content) or start + PREFIX > len(content):
            raise Problem(422, f"{at}: a text is longer than the data; correct its length.")
        text, start = content[start + PREFIX : end], end
        if is_image and not text.isascii():  # a PNG or JPEG file starts with a byte that is not ASCII
            text = base64.b64encode(text)
        try:
            texts.append(text.decode() or empty)
        except UnicodeDecodeError:
            raise Problem(422, f"{at}: a text is not UTF-8; send UTF-8.") from None
    if start < len(content):
        raise Problem(422, f"{at}: the tensor has more than {most:,} values; send fewer records.")
    return texts
