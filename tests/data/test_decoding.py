from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as TF

from era_cnn.data.decoding import FORMATS, Decoded, Decoder

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (8, 6), dtype=np.uint8)
LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}
SMOOTH = np.add.outer(np.arange(64), np.arange(48))[:, :, None] * np.array([1, 2, 0]) % 256


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **LOSSLESS.get(kind, {}), **options)
    return buffer.getvalue()


def decode(image: Image.Image | bytes, kind: str = "PNG", decoder: Decoder = Decoder(), **options: Any) -> Decoded:  # noqa: B008
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decoder.decode(image if isinstance(image, bytes) else encoded(image, kind, **options))


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "JPEG"])
def test_every_format_gives_the_pixels_that_were_saved(kind: str) -> None:
    decoded = decode(Image.fromarray(COLOUR), kind)
    assert np.array_equal(decoded.pixels, COLOUR.transpose(2, 0, 1))
    assert (decoded.original, decoded.notes) == ((8, 6), ())
    assert np.array_equal(decode(Image.fromarray(GREY), kind).pixels, GREY)


def test_a_jpeg_gives_the_pixels_of_pillow() -> None:
    content = encoded(Image.fromarray(COLOUR), "JPEG")
    assert np.array_equal(decode(content).pixels, np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "BMP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_once(orientation: int, kind: str) -> None:
    upright = Image.fromarray(SMOOTH.astype(np.uint8))
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(stored, kind, exif=exif)
    difference = np.abs(decoded.pixels.astype(int) - SMOOTH.transpose(2, 0, 1))
    assert decoded.original == (64, 48)
    assert np.median(difference) <= (8 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_invalid_orientation_is_ignored_and_noted(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(Image.fromarray(COLOUR), "JPEG", exif=exif)
    assert (decoded.original, decoded.notes) == ((8, 6), ("an invalid EXIF orientation, ignored",))


def test_a_palette_is_expanded() -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert decode(image).pixels[:, 0].tolist() == [[255, 0], [0, 255], [0, 0]]


def transparent(mode: str) -> Image.Image:
    """A black pixel beside a transparent one."""
    alpha = Image.fromarray(np.array([[[0, 0, 0, 255], [0, 0, 0, 0]]], dtype=np.uint8), "RGBA")
    if mode == "P":
        image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.info["transparency"] = 1
        return image
    if mode == "L":
        image = Image.fromarray(np.array([[0, 9]], dtype=np.uint8))
        image.info["transparency"] = 9
        return image
    return alpha.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
@pytest.mark.parametrize("background", [255, 40])
def test_transparent_pixels_get_the_background(mode: str, background: int) -> None:
    decoded = decode(transparent(mode), decoder=Decoder(background=background))
    assert decoded.pixels.tolist() == [[0, background]]
    assert decoded.notes == ("transparency, put on data.background",)


RAMP = np.linspace(0, 65_535, 256).round().astype(np.uint16).reshape(16, 16)


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("PNG", Image.fromarray(RAMP)),
        ("TIFF", Image.fromarray(RAMP)),
        ("TIFF", Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes())),
        ("TIFF", Image.fromarray(RAMP.astype(np.int32))),
    ],
    ids=["PNG", "TIFF", "TIFF, big-endian", "TIFF, 32 bits"],
)
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str, image: Image.Image) -> None:
    decoded = decode(image, kind)
    assert decoded.pixels.ravel().tolist() == list(range(256))
    assert decoded.notes == ("16 bits a pixel, scaled to 8",)


@pytest.mark.parametrize(
    "image", [Image.fromarray(RAMP.astype(np.float32)), Image.fromarray(RAMP.astype(np.int32) * 9)]
)
def test_pixels_whose_range_is_not_known_are_refused(image: Image.Image) -> None:
    with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
        decode(image, "TIFF")


def test_one_bit_is_black_and_white() -> None:
    assert decode(Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")).pixels.tolist() == [[0, 255]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_and_noted(kind: str) -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    decoded = decode(red, kind)
    assert decoded.pixels[:, 4, 4] == pytest.approx([255, 0, 0], abs=4)
    assert decoded.notes == ("CMYK, converted to RGB without a colour profile",)


def test_colour_is_decided_by_the_pixels_unless_channels_are_given() -> None:
    grey = Image.fromarray(GREY).convert("RGB")
    assert decode(grey).pixels.shape == (8, 6)
    assert decode(grey, decoder=Decoder(channels=3)).pixels.shape == (3, 8, 6)
    expected = np.asarray(Image.fromarray(COLOUR).convert("L"))
    assert np.array_equal(decode(Image.fromarray(COLOUR), decoder=Decoder(channels=1)).pixels, expected)


@pytest.mark.parametrize("size", [(3, 5), (20, 11), (8, 6)])
@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
def test_images_are_resized_as_by_torchvision(size: tuple[int, int], pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    expected = np.asarray(TF.resize(image, list(size)))
    decoded = decode(image, decoder=Decoder(size=size))
    assert np.array_equal(decoded.pixels, expected if expected.ndim == 2 else expected.transpose(2, 0, 1))
    assert decoded.original == (8, 6)


def bomb(width: int, height: int) -> bytes:
    """The header of a PNG with that many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("sides", [(11, 10), (9_000, 9_000), (60_000, 60_000)])
def test_a_gigantic_image_is_refused_by_its_header(sides: tuple[int, int], tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    (tmp_path / "bomb.png").write_bytes(bomb(*sides))
    reason = Decoder(max_pixels=100).try_to_decode(str(tmp_path / "bomb.png"))
    assert isinstance(reason, str)
    assert "more than data.max_pixels=100" in reason or "could be decompression bomb" in reason
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(COLOUR)))
    decoded = Decoder().try_to_decode(str(tmp_path / "a.jpg"))
    assert isinstance(decoded, Decoded)
    assert np.array_equal(decoded.pixels, COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "content", [b"", b"<html>", encoded(Image.fromarray(COLOUR), "GIF")], ids=["empty", "html", "GIF"]
)
def test_what_is_no_image_has_a_reason_without_the_path(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    reason = Decoder().try_to_decode(str(tmp_path / "a.png"))
    assert reason == "no image in one of the formats PNG, JPEG, BMP, WEBP, TIFF"


def test_a_file_that_cannot_be_opened_has_a_reason_without_the_path(tmp_path: Path) -> None:
    assert Decoder().try_to_decode(str(tmp_path / "a.png")) == "[Errno 2] No such file or directory"


def test_a_file_of_a_terabyte_or_without_an_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "b.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "c.png")
    found = [Decoder().try_to_decode(str(tmp_path / name)) for name in ("a.png", "b.png", "c.png")]
    assert found[0] == "1,099,511,627,776 bytes, more than the 268,435,456 that are read"
    assert found[1:] == ["[Errno 22] a pipe or a device"] * 2


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_and_flipped_files_never_raise(kind: str, tmp_path: Path) -> None:
    content = encoded(Image.fromarray(SMOOTH.astype(np.uint8)), kind)
    path, rng = tmp_path / "image", np.random.default_rng(0)
    cut = [content[:length] for length in range(0, len(content), max(1, len(content) // 40))]
    flipped = []
    for place in rng.integers(0, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        flipped.append(bytes(changed))
    reasons = 0
    for damaged in [*cut, *flipped]:
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Decoder().try_to_decode(str(path))
        reasons += isinstance(found, str) and bool(found)
    assert reasons >= 38  # whatever is cut is damaged
