"""Images as they come: odd modes become RGB that looks right, bad files become BrokenImage."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from peeralign.images.load import BrokenImage, open_image

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def stored(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "path": None}


def pixels(data: bytes) -> list[list[tuple[int, ...]]]:
    opened = open_image(stored(data))
    assert opened.mode == "RGB"
    return [[tuple(map(int, pixel)) for pixel in row] for row in np.asarray(opened)]


def noise(width: int = 60, height: int = 40) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png_header(width: int, height: int, colour_type: int = 2) -> bytes:
    """A PNG that claims a size (colour type 2: RGB, 3: palette) and holds next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9))


def test_a_path_and_bytes_give_the_same_pixels(tmp_path: Path) -> None:
    data = encode(noise(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    from_path = open_image({"bytes": None, "path": str(tmp_path / "a.png")})
    assert from_path.tobytes() == open_image(stored(data)).tobytes() == noise().tobytes()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_one_pixel_of_every_format(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    [[pixel]] = pixels(encode(Image.new("RGB", (1, 1), (200, 200, 200)), kind, **options))
    assert pixel == (200, 200, 200)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16))
    for kind in ("PNG", "TIFF"):
        assert [pixel[0] for pixel in pixels(encode(grey, kind))[0]] == [0, 1, 128, 255]
        dark = Image.fromarray(np.array([[0, 100 * 257]], dtype=np.uint16))
        assert [pixel[0] for pixel in pixels(encode(dark, kind))[0]] == [0, 100]


def test_big_endian_and_32_bit_grey() -> None:
    big_endian = Image.fromarray(np.array([[0, 128 * 257, 65535]], dtype=">u2"))
    assert [pixel[0] for pixel in pixels(encode(big_endian, "TIFF"))[0]] == [0, 128, 255]
    deep = Image.fromarray(np.array([[0, 1_000_000, 4_000_000]], dtype=np.int32))
    assert [pixel[0] for pixel in pixels(encode(deep, "TIFF"))[0]] == [0, 64, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.25, 0.5], [0, 64, 128]),
        ([0.0, 100.0, 200.0], [0, 100, 200]),
        ([0.0, 32896.0, 65535.0], [0, 128, 255]),
        ([-5.0, float("nan"), 1.0], [0, 0, 255]),
    ],
)
def test_float_tiff(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert [pixel[0] for pixel in pixels(encode(image, "TIFF"))[0]] == expected


def test_cmyk_jpeg_keeps_its_colour() -> None:
    red, green, blue = pixels(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[0][0]
    assert red > 245
    assert max(green, blue) < 10


def test_transparent_parts_become_white() -> None:
    rgba = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    rgba.putpixel((0, 0), (255, 0, 0, 0))
    assert pixels(encode(rgba, "PNG")) == [[WHITE, RED]]
    assert pixels(encode(Image.new("RGBA", (1, 1), (255, 0, 0, 51)), "PNG")) == [[(255, 204, 204)]]
    assert pixels(encode(Image.new("LA", (1, 1), (0, 51)), "PNG")) == [[(204, 204, 204)]]


def test_palette_with_transparency() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        assert pixels(encode(palette, kind, transparency=0)) == [[WHITE, RED]]
    # Alpha per palette entry: Pillow warns when this is converted straight to RGB.
    assert pixels(encode(palette, "PNG", transparency=bytes([51, 255]))) == [[(204,) * 3, RED]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = [Image.new("RGB", (3, 2), colour) for colour in (RED, GREEN)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert pixels(data) == [[RED] * 3] * 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = Image.new("RGB", (3, 2), GREEN)
    image.putpixel((0, 0), RED)
    options = {"lossless": True} if kind == "WEBP" else {}
    turned = pixels(encode(image, kind, exif=exif, **options))
    assert turned == [[GREEN, RED], [GREEN, GREEN], [GREEN, GREEN]]


def test_orientation_among_tags_that_cannot_be_written_back() -> None:
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(
        ">HHI4s", 0x011A, 2, 4, b"abc\0"
    )
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2) + entries + b"\0\0\0\0"
    assert open_image(stored(encode(noise(60, 40), "JPEG", exif=exif))).size == (40, 60)


@pytest.mark.parametrize("exif", [b"Exif\0\0junkjunk", b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12"])
def test_unreadable_metadata_does_not_spoil_the_pixels(exif: bytes) -> None:
    assert open_image(stored(encode(noise(60, 40), "JPEG", exif=exif))).size == (60, 40)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    # There is nothing to decode, so a decoder would complain of a truncated file instead.
    with pytest.raises(BrokenImage, match="13000x13000 pixels, more than the limit of 64000000"):
        open_image(stored(png_header(13000, 13000)))
    with pytest.raises(BrokenImage, match="truncated"):
        open_image(stored(png_header(50, 50)))


def test_the_limit_counts_pixels_and_is_inclusive() -> None:
    data = encode(noise(60, 40), "PNG")
    assert open_image(stored(data), max_pixels=2400).size == (60, 40)
    with pytest.raises(BrokenImage, match="60x40"):
        open_image(stored(data), max_pixels=2399)


def test_pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(noise(60, 40), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # a warning, which is an error here
    assert open_image(stored(data)).size == (60, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BrokenImage, match="too many pixels"):
        open_image(stored(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
def test_truncated_files(kind: str) -> None:
    data = encode(noise(), kind)
    assert open_image(stored(data)).size == (60, 40)
    for length in (5, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(BrokenImage):
            open_image(stored(data[:length]))


def test_damaged_files_open_or_are_broken() -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    num_broken = 0
    for kind in ("JPEG", "TIFF", "WEBP", "GIF", "PNG"):
        data = encode(noise(), kind, **({} if kind == "GIF" else {"exif": exif}))
        for _ in range(60):
            damaged = bytearray(data)
            for place in rng.integers(0, min(len(data), 400), 4):
                damaged[place] = rng.integers(0, 256)
            try:
                assert open_image(stored(bytes(damaged))).mode == "RGB"
            except BrokenImage:
                num_broken += 1
    assert num_broken > 50


def test_a_decoder_that_fails_without_a_word() -> None:
    # A palette image without its palette.
    with pytest.raises(BrokenImage, match=r"cannot be decoded: [A-Z]"):
        open_image(stored(png_header(2, 1, colour_type=3)))


def test_bad_paths(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    for name, reason in [
        ("empty.png", "is empty"),
        ("text.png", "not a PNG, JPEG"),
        ("absent.png", "no file at"),
        (".", "is a folder"),
        ("nul\0.png", "no file at"),
        ("x" * 300, "cannot be decoded"),
    ]:
        with pytest.raises(BrokenImage, match=reason):
            open_image({"bytes": None, "path": str(tmp_path / name)})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "neither bytes nor a path"),
        (b"GIF89a", "not a PNG, JPEG"),
        # Pillow would run Ghostscript on this.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a PNG, JPEG"),
    ],
)
def test_bad_bytes(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImage, match=reason):
        open_image(stored(data))
