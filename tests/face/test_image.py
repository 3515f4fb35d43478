"""Decoding: every format and colour form comes out upright, every broken one as a deliberate error."""

import io
import random
import resource
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from service.domain import Image
from service.errors import (
    ImageFormatUnsupported,
    ImageTooManyPixels,
    ImageTooSlow,
    ImageTooSmall,
    ImageUnreadable,
    SampleEmpty,
    SampleRejected,
    SampleTooLarge,
)
from service.face.image import WORKING_SIDE_PX, ImageLimits, decode, decode_scaled
from service.face.image_headers import read_jpeg

LIMITS = ImageLimits()


def scene() -> Image:
    """(60, 80, 3): a red patch top left, a blue one bottom right, smooth grey between."""
    pixels = np.full((60, 80, 3), 128, np.uint8)
    pixels[:20, :30] = (220, 20, 20)
    pixels[40:, 50:] = (20, 20, 220)
    return pixels


def encoded(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_alike(found: Image, wanted: Image, tolerance: float = 6) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == np.uint8
    assert float(np.abs(found.astype(int) - wanted).mean()) < tolerance


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
    ],
)
def test_every_format_is_read(kind: str, options: dict[str, Any]) -> None:
    assert_alike(decode(encoded(PIL.Image.fromarray(scene()), kind, **options), LIMITS), scene())


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "RGBA", "PA"])
def test_every_colour_form_becomes_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "TIFF" if mode == "PA" else "PNG"
    picture = PIL.Image.fromarray(scene())
    wanted = picture.convert("L").convert("RGB") if mode in {"L", "LA"} else picture
    if mode in {"1", "P", "PA"}:
        wanted = picture.convert("P" if mode == "PA" else mode)
    if mode == "PA":
        picture = picture.convert("P")
    assert_alike(decode(encoded(picture.convert(mode), kind), LIMITS), np.array(wanted.convert("RGB")), 12)


def test_transparent_parts_become_white() -> None:
    picture = PIL.Image.fromarray(scene()).convert("RGBA")
    picture.putalpha(PIL.Image.new("L", picture.size, 0))
    assert decode(encoded(picture, "PNG"), LIMITS).min() == 255


def test_a_transparent_palette_colour_becomes_white() -> None:
    picture = PIL.Image.new("P", (64, 64), 1)
    picture.putpalette([0, 0, 0, 90, 0, 0])
    assert decode(encoded(picture, "PNG"), LIMITS)[5, 5].tolist() == [90, 0, 0]
    assert decode(encoded(picture, "PNG", transparency=1), LIMITS)[5, 5].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_shades(kind: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    pixels = decode(encoded(PIL.Image.fromarray(ramp), kind), LIMITS)
    assert_alike(pixels, np.repeat((ramp >> 8).astype(np.uint8)[:, :, None], 3, axis=2), 1)


def test_16_bit_colour_keeps_its_shades() -> None:
    header = struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)
    line = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8000, 0x0100) * 64
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(line * 64)), (b"IEND", b"")]
    assert decode(png(chunks), LIMITS)[5, 5].tolist() == [255, 128, 1]


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, body in chunks:
        parts.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
    return b"".join(parts)


@pytest.mark.parametrize("values", [np.float32, np.int32])
def test_32_bit_grey_keeps_its_shades(values: type[np.generic]) -> None:
    ramp = np.tile(np.linspace(0, 1 if values is np.float32 else 65535, 64), (64, 1)).astype(values)
    row = decode(encoded(PIL.Image.fromarray(ramp), "TIFF"), LIMITS)[0, :, 0]
    assert row[0] == 0
    assert row[-1] == 255
    assert (np.diff(row.astype(int)) > 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_is_undone(kind: str, orientation: int) -> None:
    undo = PIL.Image.Transpose
    stored_as = {
        1: None,
        2: undo.FLIP_LEFT_RIGHT,
        3: undo.ROTATE_180,
        4: undo.FLIP_TOP_BOTTOM,
        5: undo.TRANSPOSE,
        6: undo.ROTATE_90,
        7: undo.TRANSVERSE,
        8: undo.ROTATE_270,
    }[orientation]
    picture = PIL.Image.fromarray(scene())
    stored = picture if stored_as is None else picture.transpose(stored_as)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    assert_alike(decode(encoded(stored, kind, exif=exif), LIMITS), scene())


def test_a_large_jpeg_is_reduced_and_says_by_how_much() -> None:
    picture = PIL.Image.fromarray(scene()).resize((2 * WORKING_SIDE_PX, 600))
    for kind in ("JPEG", "PNG"):
        found = decode_scaled(encoded(picture, kind), LIMITS)
        assert found.scale == pytest.approx(0.5)
        assert_alike(found.pixels, np.array(picture.resize((WORKING_SIDE_PX, 300))))


def test_nothing_is_an_empty_sample() -> None:
    with pytest.raises(SampleEmpty):
        decode(b"", LIMITS)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(SampleTooLarge):
        decode(b"\xff\xd8" + bytes(100), ImageLimits(max_bytes=100))


@pytest.mark.parametrize("kind", ["GIF", "ICO", "PPM", "PDF", "TGA"])
def test_another_format_is_named_as_such(kind: str) -> None:
    with pytest.raises(ImageFormatUnsupported):
        decode(encoded(PIL.Image.fromarray(scene()), kind), LIMITS)


def test_a_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = png([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000_000))), (b"IEND", b"")])
    with pytest.raises(ImageTooManyPixels):
        decode(bomb, LIMITS)
    with pytest.raises(ImageTooManyPixels):
        decode(bomb, ImageLimits(max_pixels=400_000_000))


def test_a_bomb_below_pillows_own_limit_is_refused_too() -> None:
    picture = PIL.Image.new("1", (10_000, 6_000))
    with pytest.raises(ImageTooManyPixels):
        decode(encoded(picture, "PNG"), LIMITS)


def test_a_tiny_image_is_refused() -> None:
    with pytest.raises(ImageTooSmall):
        decode(encoded(PIL.Image.new("RGB", (200, 31)), "PNG"), LIMITS)


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    data = encoded(PIL.Image.fromarray(scene()).resize((2000, 1500)), "JPEG", progressive=True)
    last_scan = data[data.rfind(b"\xff\xda") : -2]
    with pytest.raises(ImageTooSlow):
        decode(data[:-2] + last_scan * 1000 + data[-2:], LIMITS)


def test_a_tiff_of_very_many_strips_is_refused_before_it_is_decoded() -> None:
    picture = encoded(PIL.Image.fromarray(scene()), "TIFF")
    (first,) = struct.unpack_from("<I", picture, 4)
    strip_offsets = picture.index(struct.pack("<H", 0x0111), first)
    lie = picture[: strip_offsets + 4] + struct.pack("<I", 2_000_000) + picture[strip_offsets + 8 :]
    with pytest.raises(ImageTooSlow):
        decode(lie, LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000"])
def test_a_file_cut_in_half_is_unreadable(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    data = encoded(PIL.Image.fromarray(noise), kind)
    with pytest.raises(ImageUnreadable):
        decode(data[: len(data) // 2], LIMITS)


def test_a_decoder_never_sees_the_metadata_of_a_jpeg() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture = PIL.Image.fromarray(scene()).convert("CMYK")
    data = encoded(picture, "JPEG", exif=exif, icc_profile=b"profile", comment=b"remark")
    facts = read_jpeg(data)
    assert facts.orientation == 6
    assert facts.scans == 1
    assert b"Adobe" in facts.stripped  # names the colour space
    assert not any(part in facts.stripped for part in (b"Exif", b"ICC_PROFILE", b"remark"))


def test_pillows_remarks_stay_quiet(recwarn: pytest.WarningsRecorder) -> None:
    picture = encoded(PIL.Image.fromarray(scene()), "PNG")
    lying_animation = struct.pack(">I", 8) + b"acTL" + bytes(8) + struct.pack(">I", zlib.crc32(b"acTL" + bytes(8)))
    decode(picture[:33] + lying_animation + picture[33:], LIMITS)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="ours"):
        warnings.warn("ours still count", stacklevel=1)


def broken(rng: random.Random, originals: list[bytes]) -> bytes:
    """One damaged image: cut, overwritten, with bytes lost, or two files spliced."""
    data = bytearray(rng.choice(originals))
    match rng.randrange(5):
        case 0:
            del data[rng.randrange(len(data)) :]
        case 1:
            for _ in range(rng.randrange(1, 40)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:  # headers are where lies hurt
            for _ in range(rng.randrange(1, 8)):
                data[rng.randrange(min(200, len(data)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        case 3:
            start = rng.randrange(len(data))
            del data[start : start + rng.randrange(1, 200)]
        case _:
            other = rng.choice(originals)
            data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]
    return bytes(data)


def originals() -> list[bytes]:
    picture = PIL.Image.fromarray(scene())
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    forms: list[tuple[str, PIL.Image.Image, dict[str, Any]]] = [
        ("JPEG", picture, {"exif": exif}),
        ("JPEG", picture, {"progressive": True}),
        ("JPEG", picture.convert("CMYK"), {}),
        ("PNG", picture, {"exif": exif}),
        ("PNG", picture.convert("P"), {"transparency": 1}),
        ("PNG", picture.convert("RGBA"), {}),
        ("WEBP", picture, {"exif": exif}),
        ("WEBP", picture, {"lossless": True}),
        ("BMP", picture.convert("P"), {}),
        ("TIFF", picture, {"compression": "tiff_lzw"}),
        ("TIFF", picture, {"compression": "tiff_adobe_deflate"}),
        ("TIFF", picture.convert("1"), {"compression": "group4"}),
        ("TIFF", picture, {"compression": "jpeg"}),
        ("TIFF", picture, {}),
        ("JPEG2000", picture, {}),
    ]
    return [encoded(form, kind, **options) for kind, form, options in forms]


def test_2000_broken_images_give_pixels_or_a_deliberate_error_in_little_memory() -> None:
    rng, pool = random.Random(2), originals()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for _ in range(2000):
        try:
            decode(broken(rng, pool), LIMITS)
        except SampleRejected:
            refused += 1
    assert refused > 700
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def test_four_threads_decode_what_one_decodes(t1_path: Path) -> None:
    data = t1_path.read_bytes()
    alone = decode(data, LIMITS)
    with ThreadPoolExecutor(4) as threads:
        for together in threads.map(lambda _: decode(data, LIMITS), range(12)):
            assert np.array_equal(together, alone)
