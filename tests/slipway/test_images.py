"""Images are decoded without their metadata, and to the same pixels as with it."""

import struct
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from slipway.images import MAX_SCANS, PNG, START_OF_SCAN, NotAnImage, decode_image

SIDE = 24
GRAY = np.add.outer(np.arange(SIDE), 9 * np.arange(SIDE)).astype(np.uint8)
COLOUR = np.stack([GRAY, GRAY.T, 255 - GRAY], axis=2)
BOMB = zlib.compress(bytes(2**26), 9)[:60_000]
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def file(pixels: Any, form: str, **options: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def exif() -> Image.Exif:
    written = Image.Exif()
    written[0x0112] = 6  # the camera was turned
    written[0x010E] = "a description"
    return written


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(*chunks: bytes) -> bytes:
    plain, header = file(GRAY, "PNG"), len(PNG) + 25
    return plain[:header] + b"".join(chunks) + plain[header:]


def with_segments(*segments: tuple[int, bytes]) -> bytes:
    plain = file(GRAY, "JPEG")
    added = [b"\xff" + bytes([kind]) + struct.pack(">H", len(content) + 2) + content for kind, content in segments]
    return plain[:2] + b"".join(added) + plain[20:]  # without the 18 bytes of JFIF, whose resolution Pillow prefers


def texts() -> PngInfo:
    added = PngInfo()
    added.add_text("key", "value", zip=True)
    added.add_itxt("key", "value")
    return added


ALL = {"exif": exif(), "icc_profile": PROFILE, "dpi": (300, 300)}
FILES = {
    "JPEG": (file(GRAY, "JPEG", **ALL, comment=b"a comment"), GRAY),
    "progressive JPEG": (file(COLOUR, "JPEG", progressive=True, **ALL), COLOUR),
    "JPEG without subsampling": (file(COLOUR, "JPEG", subsampling=0, quality=95, restart_marker_blocks=2), COLOUR),
    "JPEG of RGB": (file(COLOUR, "JPEG", keep_rgb=True), COLOUR),
    "JPEG with fill bytes": (file(GRAY, "JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb"), GRAY),
    "several pictures": (file(COLOUR, "MPO", save_all=True, append_images=[Image.fromarray(COLOUR)]), COLOUR),
    "PNG": (file(COLOUR, "PNG", **ALL, pnginfo=texts()), COLOUR),
    "transparent colour": (file(COLOUR, "PNG", transparency=(1, 2, 3)), COLOUR),
    "animated PNG": (file(GRAY, "PNG", save_all=True, append_images=[Image.fromarray(GRAY.T)]), GRAY),
}


@pytest.mark.parametrize("name", FILES)
def test_the_pixels_are_those_that_pillow_opens(name: str) -> None:
    content, pixels = FILES[name]
    with Image.open(BytesIO(content)) as image:
        expected = np.asarray(image).reshape(SIDE, SIDE, -1)
    assert np.array_equal(decode_image(content, expected.shape), expected)
    assert np.abs(expected - pixels.reshape(expected.shape).astype(float)).mean() < 20


DIRECTORY = b"II*\0" + struct.pack("<IH", 8, 100) + b"".join(struct.pack("<HHII", i, 7, 9_999, 0) for i in range(100))
METADATA = {
    "profile": with_chunks(chunk(b"iCCP", b"x\0\0" + BOMB)),
    "compressed text": with_chunks(chunk(b"zTXt", b"x\0\0" + BOMB)),
    "empty animation": with_chunks(chunk(b"acTL", bytes(8))),
    "many chunks": with_chunks(*[chunk(b"teSt", b"")] * 5_000),
    "directory of EXIF": with_segments((0xE1, b"Exif\0\0" + DIRECTORY)),
    "many parts of EXIF": with_segments(*[(0xE1, b"Exif\0\0x")] * 6_000),
}


@pytest.mark.parametrize("name", METADATA)
def test_hostile_metadata_is_not_read(name: str) -> None:
    content = METADATA[name]
    plain = file(GRAY, "PNG" if content.startswith(PNG) else "JPEG")
    with warnings.catch_warnings(action="error"):
        assert np.array_equal(decode_image(content, (SIDE, SIDE, 1)), decode_image(plain, (SIDE, SIDE, 1)))


@pytest.mark.parametrize("scans", [MAX_SCANS, MAX_SCANS + 1])
def test_a_jpeg_with_many_scans_is_refused(scans: int) -> None:
    plain = file(GRAY, "JPEG", progressive=True)
    last = plain[plain.rindex(START_OF_SCAN) : -2]
    content = plain[:-2] + last * (scans - plain.count(START_OF_SCAN)) + plain[-2:]
    if scans <= MAX_SCANS:
        assert decode_image(content, (SIDE, SIDE, 1)).shape == (SIDE, SIDE, 1)
        return
    with pytest.raises(NotAnImage, match="has more than 100 scans"):
        decode_image(content, (SIDE, SIDE, 1))
