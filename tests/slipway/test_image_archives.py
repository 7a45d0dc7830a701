"""Archives of images: an image keeps its path and its bytes, and no archive can do harm."""

import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from slipway import image_archives
from slipway.errors import CheckFailed, InputError
from slipway.image_archives import ImageArchive, is_archive
from slipway.images import NotAnImage
from slipway.integrations import delivery_source
from slipway.integrations.delivery_source import DeliverySource
from slipway.pipeline.image_folder import find_images

IMAGES = {"a.png": b"first", "more/b.JPG": b"second", "more/deep/\u00e4.jpeg": b"third"}
OTHERS = {"index.csv": b"photo", "index.csv.zip": b"no archive of images", ".hidden.png": b"hidden", "_x/c.png": b"x"}


CENTRAL = b"PK\x01\x02\x14\x03\x14\x00"
"""The start of an entry in the list of an archive. The next byte is 1 if the file has a password."""


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def fetched(folder: Path) -> Path:
    """Return a copy as `slipway ingest` makes it."""
    copy = folder.with_name(f"{folder.name}_copy")
    with DeliverySource(str(folder.parent)).fetched(folder.name) as packed:
        shutil.copytree(packed, copy)
    return copy


def test_packed_images_keep_their_paths_and_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "delivery", IMAGES | OTHERS)
    monkeypatch.setattr(image_archives, "ARCHIVE_BYTES", len(b"firstsecond"))
    monkeypatch.setattr(delivery_source, "GROUP_FILES", 2)
    packed = fetched(folder)
    found = find_images(packed, "packed")
    assert found
    assert {name: found.read(name, 10) for name in found.sizes} == IMAGES
    left = {path.relative_to(packed).as_posix() for path in packed.rglob("*")}
    assert left == {*OTHERS, "_x", "images-00000.zip", "images-00001.zip"}
    source = DeliverySource(str(tmp_path))
    assert source.has("delivery", packed)
    assert source.has("delivery", folder)  # a delivery that an earlier version did not pack
    (folder / "a.png").write_bytes(b"other")
    assert not source.has("delivery", packed)


def test_packing_twice_gives_the_same_bytes_and_keeps_delivered_archives(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "delivery", IMAGES)
    archive(folder / "images-00000.zip", {"delivered.png": b"delivered"})
    written = {path.name: path.read_bytes() for path in fetched(folder).iterdir()}
    assert [*sorted(written)] == ["images-00000.zip", "images-00001.zip"]
    assert written["images-00000.zip"] == (folder / "images-00000.zip").read_bytes()
    assert written == {path.name: path.read_bytes() for path in fetched(tmp_path / "delivery_copy").iterdir()}
    shutil.rmtree(tmp_path / "delivery_copy")
    assert written == {path.name: path.read_bytes() for path in fetched(folder).iterdir()}


def test_an_image_that_changes_while_it_is_copied_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "delivery", IMAGES)
    pack = delivery_source.pack_images

    def slowly(images: Iterable[tuple[str, bytes]], to: Path) -> None:
        pack(images, to)
        (folder / "a.png").write_bytes(b"longer than before")

    monkeypatch.setattr(delivery_source, "pack_images", slowly)
    with pytest.raises(CheckFailed, match="is still being written"), DeliverySource(str(tmp_path)).fetched("delivery"):
        pass


def test_a_name_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "delivery", {"\udcff.png": b""})
    with pytest.raises(InputError, match=r"^The delivery has an image whose name is not UTF-8 "):
        fetched(tmp_path / "delivery")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photos.zip", True),
        ("PHOTOS.ZIP", True),
        ("index.csv.zip", False),
        ("part.parquet.zip", False),
        (".photos.zip", False),
        ("_photos.zip", False),
        ("photos.png", False),
    ],
)
def test_an_archive_of_images_is_known_by_its_name(name: str, expected: bool) -> None:
    assert is_archive(name) is expected


def archive(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as written:
        for name, content in files.items():
            written.writestr(name, content)
    return path


def test_a_name_in_an_archive_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside.png").write_bytes(b"outside")
    archive(tmp_path / "in/photos.zip", {"../outside.png": b"inside", "/etc/passwd.png": b"inside"})
    found = find_images(tmp_path / "in", "in")
    assert found
    assert [found.read(name, 10) for name in ("/etc/passwd.png",)] == [b"inside"]
    with pytest.raises(NotAnImage, match="not in the folder"):
        found.read("../outside.png", 10)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "photos.zip", {"a.png": bytes(50_000_000)})
    found = find_images(tmp_path, "in")
    assert found
    with pytest.raises(NotAnImage, match="more than 1,000 bytes"):
        found.read("a.png", 1_000)
    lying = path.read_bytes().replace((50_000_000).to_bytes(4, "little"), (500).to_bytes(4, "little"))
    path.write_bytes(lying)
    assert ImageArchive(path, "in").sizes == {"a.png": 500}
    with pytest.raises(InputError, match=r"in is a damaged or protected archive \(BadZipFile\)"):
        ImageArchive(path, "in").read("a.png")


def changed(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def add_twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as written, pytest.warns(UserWarning, match="Duplicate"):
        written.writestr("a.png", b"again")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b""), r"photos.zip is a damaged or protected archive \(BadZipFile\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "damaged"),
        (lambda path: changed(path, b"first", b"other"), "damaged"),
        (lambda path: changed(path, CENTRAL + b"\x00", CENTRAL + b"\x01"), "RuntimeError"),
        (lambda path: archive(path, {"a.png": b"first", "notes.txt": b""}), "has a file that is not named .png"),
        (lambda path: archive(path, {"loose.png": b""}), "in has the image 'loose.png' twice"),
        (add_twice, "photos.zip has the image 'a.png' twice"),
    ],
)
def test_an_archive_that_cannot_be_read_is_refused(
    tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    path = archive(tmp_path / "photos.zip", {"a.png": b"first", "__MACOSX/a.png": b"", "sub/": b""}, zipfile.ZIP_STORED)
    (tmp_path / "loose.png").touch()
    damage(path)
    with pytest.raises(InputError, match=words):
        find_images(tmp_path, "in").read("a.png", 10)  # type: ignore[union-attr]
