"""Small images for reports, as PNG or, where that would be large, JPEG: always encoded anew, never passed through.

Shapes: N images, C channels, H×W pixels.
"""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

ZOOM_TO = 56
"""Images are enlarged by a whole number until they are at least that high."""


def encoded(image: NDArray[Any]) -> tuple[str, bytes]:
    """An image (C, H, W) uint8, grey or colour, as a media type and bytes; of other channels, the first."""
    picture = _picture(image)
    content = io.BytesIO()
    if picture.mode == "RGB":
        picture.save(content, "JPEG", quality=88)
        return "image/jpeg", content.getvalue()
    picture.save(content, "PNG", optimize=True)
    return "image/png", content.getvalue()


def png(image: NDArray[Any]) -> bytes:
    """An image (C, H, W) uint8 as PNG."""
    content = io.BytesIO()
    _picture(image).save(content, "PNG", optimize=True)
    return content.getvalue()


def data_uri(media_type: str, content: bytes) -> str:
    """The content as an address that needs no request."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def zoomed(image: NDArray[Any], to: int = ZOOM_TO) -> NDArray[Any]:
    """An image (C, H, W) whose pixels are repeated until it is about `to` pixels high."""
    factor = max(1, round(to / image.shape[1]))
    enlarged: NDArray[Any] = image.repeat(factor, axis=1).repeat(factor, axis=2)
    return enlarged


def grid(images: NDArray[Any], columns: int, gap: int = 2) -> NDArray[Any]:
    """Images (N, C, H, W) side by side, with white gaps, as one (C, H', W')."""
    import numpy as np

    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    sheet = np.full((channels, rows * (height + gap) - gap, min(columns, count) * (width + gap) - gap), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def around_grey(values: NDArray[Any]) -> NDArray[Any]:
    """Values (N, C, H, W) as images: mid-grey is zero, and the largest magnitude of an image is 0 or 255."""
    import numpy as np

    largest = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    images: NDArray[Any] = ((scaled + 1) * 127.5).round().astype(np.uint8)
    return images


def with_heat(image: NDArray[Any], heat: NDArray[Any]) -> NDArray[Any]:
    """An image (C, H, W) with a map (h, w) in [0, 1] over it, as colours (3, H, W): blue is 0, red is 1."""
    import numpy as np
    from PIL import Image

    _, height, width = image.shape
    small = Image.fromarray((heat * 255).round().astype(np.uint8))
    share = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR), np.float64) / 255
    colours = np.stack([share, 0.25 * (1 - np.abs(2 * share - 1)), 1 - share]) * 255
    base = np.broadcast_to(image[:3] if len(image) >= 3 else image[:1], (3, height, width))
    mixed: NDArray[Any] = (0.55 * base + 0.45 * colours).round().astype(np.uint8)
    return mixed


def _picture(image: NDArray[Any]) -> Image.Image:
    import numpy as np
    from PIL import Image

    if len(image) in (3, 4):
        return Image.fromarray(np.ascontiguousarray(image[:3].transpose(1, 2, 0)), "RGB")
    return Image.fromarray(np.ascontiguousarray(image[0]), "L")
