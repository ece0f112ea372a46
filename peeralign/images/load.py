"""Open images safely: a pixel limit before decoding, first frame only, upright, always RGB."""

from __future__ import annotations

import base64
import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Pillow goes by a file's content, not its name, and would start Ghostscript on an EPS file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


class BrokenImage(Exception):
    """An image that cannot be used. The item is set aside with this reason; the run goes on."""


def open_image(image: dict[str, Any], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a stored image (``{"bytes", "path"}``) to RGB, turned as its EXIF orientation says.

    Of an animation the first frame is taken; transparent parts become white. Raises BrokenImage
    for a missing or unreadable file, for a truncated one, and for one of more than `max_pixels`
    pixels, which is refused before it is decoded.
    """
    try:
        # What Pillow warns of (odd metadata, many pixels) is either harmless or refused below.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(_source(image), formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > max_pixels:
                    raise BrokenImage(
                        f"{width}x{height} pixels, more than the limit of {max_pixels}"
                    )
                opened.load()
                with contextlib.suppress(Exception):  # bad metadata does not spoil the pixels
                    ImageOps.exif_transpose(opened, in_place=True)
                return _to_rgb(opened)
    except BrokenImage:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage("not a PNG, JPEG, WebP, BMP, GIF or TIFF image") from error
    except Image.DecompressionBombError as error:
        raise BrokenImage(f"too many pixels: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on malformed data
        raise BrokenImage(f"cannot be decoded: {str(error) or type(error).__name__}") from error


def _source(image: dict[str, Any]) -> Any:
    if image["bytes"]:
        return io.BytesIO(image["bytes"])
    if not image["path"]:
        raise BrokenImage("it has neither bytes nor a path")
    path = Path(image["path"])
    if path.is_dir():
        raise BrokenImage(f"{path} is a folder")
    if not path.is_file():
        raise BrokenImage(f"no file at {path}")
    if path.stat().st_size == 0:
        raise BrokenImage(f"{path} is empty")
    return path


def _to_rgb(opened: Image.Image) -> Image.Image:
    if opened.mode.startswith("I") or opened.mode == "F":
        return _to_grey(opened).convert("RGB")
    if opened.has_transparency_data:
        rgba = opened.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return opened.convert("RGB")


def _to_grey(opened: Image.Image) -> Image.Image:
    """Scale a deep grey image to 8 bits; Pillow would clip its values at 255.

    White is 65535 for whole numbers; for floats it is 1, 255 or 65535, the smallest that holds
    the brightest pixel. Brighter images are scaled to their brightest pixel.
    """
    values = np.nan_to_num(np.asarray(opened, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    brightest = float(values.max())
    whites = (1.0, 255.0, 65535.0) if opened.mode == "F" else (65535.0,)
    white = next((white for white in whites if brightest <= white), brightest)
    return Image.fromarray((values.clip(0, white) * (255.0 / white) + 0.5).astype(np.uint8))


def png_data_url(image: Image.Image) -> str:
    """The pixels, unchanged, as a data URL; nobody opens it as a path or an address."""
    buffer = io.BytesIO()
    # Higher levels take several times longer and save photographs little.
    (image if image.mode == "RGB" else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
