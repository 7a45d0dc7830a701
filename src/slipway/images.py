"""Decode images. Training, evaluation and the server all use this module, so they get the same pixels.

This module may import only packages that the image of the server contains. Pillow is imported when the first image is
decoded.
"""

import binascii
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode for each number of channels. Each channel has 8 bits."""
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
MAX_METADATA = 65_536
"""Maximum number of bytes in an image file that are not pixels, such as the header and metadata."""
MAX_SCANS = 100
"""Maximum number of scans in a JPEG file. Each scan of a few bytes can take as long as decoding the whole image.

Encoders write about ten scans in a progressive file.
"""
START_OF_SCAN = b"\xff\xda"
IGNORED_SEGMENTS = {bytes([0xE0 + number]) for number in range(1, 16) if number != 14} | {b"\xfe"}
"""Types of JPEG segments that do not affect the pixels: APP1 to APP15 without APP14, and comments."""

Shape = tuple[int, ...]
"""Height, width and number of channels."""


class NotAnImage(ValueError):
    """The bytes are not an image that the column accepts.

    The message completes a sentence about the image, and never quotes its bytes.
    """


def max_bytes(shape: Shape) -> int:
    """Return the maximum size of an image file in bytes: twice the decoded size, plus an allowance for metadata.

    Valid files are smaller than this limit, even if their pixels cannot be compressed.
    """
    height, width, channels = shape
    return 2 * height * width * channels + MAX_METADATA


def decode_image(content: bytes, shape: Shape) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG image to an array with the shape [height, width, channels].

    The image is never scaled, rotated or converted, and its metadata is not read. The format, the size and the mode are
    checked before pixels are decoded. Raises NotAnImage.
    """
    if len(content) > max_bytes(shape):
        raise NotAnImage(f"has more than {max_bytes(shape):,} bytes")
    reader = _reader(content[: len(PNG)])
    try:
        with reader(BytesIO(_without_metadata(content))) as image:
            _check_header(image, shape)
            pixels: NDArray[np.uint8] = np.asarray(image)
    except NotAnImage:
        raise
    except Exception:  # Pillow raises exceptions of many types for damaged files
        raise NotAnImage("is truncated or damaged") from None
    return pixels.reshape(shape)


def _without_metadata(content: bytes) -> bytes:
    """Remove the parts of a PNG or JPEG file that do not affect the pixels, such as EXIF data and colour profiles.

    Pillow would decompress and parse them. A small file could keep it busy for seconds, and make it print warnings.
    """
    return b"".join(_png_chunks(content) if content.startswith(PNG) else _jpeg_segments(content))


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """Yield the signature and the critical chunks of a PNG file. The type of a critical chunk starts with a capital."""
    yield content[: len(PNG)]
    start = len(PNG)
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        if content[start + 4 : start + 5].isupper():
            yield content[start:end]
        start = end


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    """Yield a JPEG file without the comments and application data before its first scan.

    The segments APP0 and APP14 are kept, because they define the colour space. Raises NotAnImage if the file has too
    many scans.
    """
    if content.count(START_OF_SCAN) > MAX_SCANS:
        raise NotAnImage(f"has more than {MAX_SCANS} scans")
    yield content[:2]
    start = 2
    while content.startswith(b"\xff", start) and not content.startswith(START_OF_SCAN, start):
        if content.startswith(b"\xff\xff", start):  # a marker can have fill bytes before it
            start += 1
            continue
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4])
        if content[start + 1 : start + 2] not in IGNORED_SEGMENTS:
            yield content[start:end]
        start = end
    yield content[start:]


def _check_header(image: Any, shape: Shape) -> None:
    height, width, channels = shape
    if image.size != (width, height):
        raise NotAnImage(f"is not {width:,} pixels wide and {height:,} high")
    if image.mode != MODES[channels]:
        raise NotAnImage("is not gray with 8 bits" if channels == 1 else "is not RGB with 8 bits per channel")


def decode_base64(text: str) -> bytes:
    """Decode base64 text from a request or a CSV file to bytes. Raises NotAnImage if the text is not base64."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (TypeError, ValueError):
        raise NotAnImage("is not base64") from None


def _reader(start: bytes) -> Any:
    """Return Pillow's class for reading an image that starts with the bytes `start`.

    Pillow's `Image.open` is not used, because it loads the code of all formats, and warns about large images.
    """
    if start == PNG:
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile
    if start.startswith(JPEG):
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile
    raise NotAnImage("is not a PNG or JPEG image")
