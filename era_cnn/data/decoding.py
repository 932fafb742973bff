"""Decodes an image file to 8-bit pixels, upright, grey or in colour."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from era_cnn.paths import open_plain

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
"""Pillow's names of the formats that are read. A file's content decides which one it has, not its name."""

MOST_BYTES = 2**28
"""The most bytes of a file that is read."""

ORIENTATION = 0x0112
"""The EXIF tag that says how an image has to be turned or mirrored: 1 to 8."""


@dataclass(frozen=True)
class Decoder:
    """How image files become pixels.

    Args:
        size: Height and width to which images are resized, as torchvision's `Resize` does; None to keep theirs.
        channels: 1 for grey, 3 for colour, None to keep what they have.
        background: The grey value behind transparent pixels, 0 to 255.
        max_pixels: The most pixels that a file may have. It is read off the header: a small file can hold billions.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    background: int = 255
    max_pixels: int = 100_000_000

    def decode(self, content: bytes) -> Decoded:
        """Decodes the content of a file.

        Raises:
            Exception: Of any type, if it is damaged or too large: decoders raise many.
        """
        notes: list[str] = []
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > self.max_pixels:
            found = f"{image.width:,} × {image.height:,} pixels"
            raise ValueError(f"{found}, more than data.max_pixels={self.max_pixels}")
        image.load()
        image = _upright(image, notes)
        image = _eight_bits(_opaque(image, self.background, notes), notes)
        if self.channels is not None:
            image = image.convert("L" if self.channels == 1 else "RGB")
        original = image.height, image.width
        if self.size is not None and original != self.size:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        if pixels.ndim == 3 and self.channels is None and (pixels == pixels[:, :, :1]).all():
            pixels = pixels[:, :, 0]
        return Decoded(pixels if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0), original, tuple(notes))

    def try_to_decode(self, path: str) -> Decoded | str:
        """Reads and decodes a file; gives the reason if that fails."""
        try:
            with open_plain(path) as file:
                if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
                    return f"{size:,} bytes, more than the {MOST_BYTES:,} that are read"
                return self.decode(file.read())
        except UnidentifiedImageError:
            return f"no image in one of the formats {', '.join(FORMATS)}"
        except Exception as error:  # noqa: BLE001 - OSError, ValueError, SyntaxError, struct.error and others
            reason = " ".join(str(error).split()).replace(f": {path!r}", "")
            return reason or type(error).__name__


class Decoded(NamedTuple):
    """The pixels of an image: (H, W) if it is grey, else (3, H, W); its height and width before resizing; and notes."""

    pixels: NDArray[np.uint8]
    original: tuple[int, int]
    notes: tuple[str, ...]


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turns an image as its EXIF tag says, once: Pillow has turned TIFF images already, and removed their tag."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - the metadata is damaged, the pixels need not be
        orientation = None
    if orientation not in range(1, 9):
        notes.append("an invalid EXIF orientation, ignored")
        return image
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _opaque(image: Image.Image, background: int, notes: list[str]) -> Image.Image:
    """Puts an image with transparent pixels on a background."""
    if not image.has_transparency_data:
        return image
    notes.append("transparency, put on data.background")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (background,) * 3 + (255,)), image).convert("RGB")


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """Converts an image to grey or colour with 8 bits a channel."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA", "La"):
        return image.convert("L")
    if image.mode.startswith("I"):  # I;16 in either order of the bytes, or I: to 8 bits by scaling, not by clipping
        notes.append("16 bits a pixel, scaled to 8")
        return Image.fromarray(_scaled(np.asarray(image)))
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known: save it with 8 or 16 bits")
    if image.mode == "CMYK":
        notes.append("CMYK, converted to RGB without a colour profile")
    return image.convert("RGB")


def _scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
    if int(values.min()) < 0 or int(values.max()) > 65_535:
        raise ValueError("pixels with more than 16 bits: save it with 8 or 16 bits")
    return ((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
