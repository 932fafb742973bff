"""Reads pictures for a trained network: image files become what the images of its data set are.

Shapes: N pictures, C channels, H×W pixels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from era_cnn.config.schema import RunConfig
from era_cnn.data.decoding import Decoded, Decoder
from era_cnn.data.listing import SUFFIXES
from era_cnn.data.strokes import draw_strokes, is_prepared
from era_cnn.errors import ConfigError, problem

Pixels = NDArray[np.uint8]

PICTURES = (*SUFFIXES, ".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg")
"""The endings of the files in a folder that a person means: what can't be read of them gets its message."""


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant: those that are named, and the pictures in folders, at any depth and sorted by path.

    A folder without images stands for itself, so that whoever reads it hears of it.

    Raises:
        ConfigError: If there is nothing but such folders.
    """
    found = [each for path in paths for each in (sorted(_images_in(path)) or [path] if path.is_dir() else [path])]
    if all(path.is_dir() for path in found):
        advice = f"Name files, or folders with files such as *{SUFFIXES[0]}."
        raise ConfigError([problem("IMAGE", "name at least one image", ", ".join(map(str, paths)), advice)])
    return found


def _images_in(folder: Path) -> Iterator[Path]:
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if name.lower().endswith(PICTURES) and not name.startswith("."))


class Preparer:
    """Prepares pictures for the network of a run: handwriting as its data set was made, everything else by resizing.

    Raises:
        ConfigError: If the network takes images that are neither grey nor in colour.
    """

    def __init__(self, config: RunConfig) -> None:
        channels, *size = config.info.shape
        if channels not in (1, 3):
            rule = "have images with 1 or 3 channels to predict from files"
            raise ConfigError([problem("data", rule, channels, "Predict from arrays, in Python.")])
        own = {name: getattr(config.data, name) for name in ("background", "max_pixels") if hasattr(config.data, name)}
        self._size, self._strokes = (size[0], size[1]), config.info.strokes
        self._whole = Decoder(channels=channels, **own)
        self._resized = Decoder(self._size, channels, **own)

    def read(self, path: Path) -> Pixels | str:
        """What the network sees of an image file, (C, H, W); or why there is nothing to see."""
        decoded = _decoded(path, self._resized if self._strokes is None else self._whole)
        if isinstance(decoded, str):
            return decoded
        pixels = decoded.pixels
        if self._strokes is not None and not is_prepared(pixels, self._size):
            try:
                pixels = draw_strokes(pixels, self._size, self._strokes)
            except ValueError as error:
                return str(error)
        return pixels if pixels.ndim == 3 else pixels[None]

    def original(self, path: Path) -> Pixels:
        """The pixels of a file that `read` could read, upright and not resized, (C, H, W) of its own size."""
        decoded = _decoded(path, self._whole)
        assert not isinstance(decoded, str), "it was read before"
        return decoded.pixels if decoded.pixels.ndim == 3 else decoded.pixels[None]

    def read_all(self, paths: Sequence[Path]) -> tuple[list[Path], list[Pixels], dict[Path, str]]:
        """The files that can be read and what the network sees of them; and why others can't be read."""
        read = {path: self.read(path) for path in paths}
        problems = {path: found for path, found in read.items() if isinstance(found, str)}
        good = [path for path in paths if path not in problems]
        return good, [found for path in good if not isinstance(found := read[path], str)], problems


def unreadable(path: Path, reason: str, advice: str = "It was skipped.") -> str:
    """The message about a file that is no image."""
    return f"{path} must be an image that can be read, got: {reason.rstrip('.')}. {advice}"


def _decoded(path: Path, decoder: Decoder) -> Decoded | str:
    if not path.exists():
        return "no such file"
    if not path.is_file():
        return "a folder without images" if path.is_dir() else "something that is no file"
    if not path.stat().st_size:
        return "an empty file"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is decoded all the same, or is an error
        return decoder.try_to_decode(str(path))
