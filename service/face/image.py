"""Turns untrusted bytes into upright RGB pixels, within limits that are checked before decoding."""

import io
import logging
import re
import struct
import warnings
import zlib
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import simplejpeg

from service.domain import Image
from service.errors import (
    ImageFormatUnsupported,
    ImageTooManyPixels,
    ImageTooSlow,
    ImageTooSmall,
    ImageUnreadable,
    SampleEmpty,
    SampleTooLarge,
)
from service.face.image_headers import orientation_of, read_jpeg, tiff_pieces

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000")

# a longer side above this is halved until below: a face that is lost by it has under 1 % of the image's width
WORKING_SIDE_PX = 5000

# pixels decoded in a second on one slow core (a third of what was measured; JPEG 2000 at its slowest, lossless), to
# judge the time before spending it; a progressive JPEG counts each of its scans
PIXELS_PER_S = {"JPEG": 150e6, "PNG": 10e6, "WEBP": 10e6, "BMP": 50e6, "TIFF": 10e6, "JPEG2000": 3e6}

# strips or tiles of a TIFF file; Pillow keeps a Python object for each
MAX_TIFF_PIECES = 20_000

# what Pillow's readers were seen to raise on damaged files; MemoryError comes from lying sizes
_FOREIGN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    AssertionError,
    BufferError,
    MemoryError,
    struct.error,
    zlib.error,
)

_PILLOW = r"PIL\."

# a damaged sample is reported by its error; Pillow's own log lines about it would let a caller fill the log
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_UNREADABLE = "the image is damaged or cut off: send the file again or take a new photograph"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a sample may cost before it is refused."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_decode_s: float = 5.0
    min_side_px: int = 32


@dataclass(frozen=True, slots=True)
class ScaledImage:
    """Upright pixels and how they relate to the file's own."""

    pixels: Image = field(repr=False)
    scale: float  # decoded pixels for one pixel of the file: 1, or less for very large images


def decode(data: bytes, limits: ImageLimits) -> Image:
    """Return the pixels of `decode_scaled`, for callers who do not need the file's own coordinates."""
    return decode_scaled(data, limits).pixels


def decode_scaled(data: bytes, limits: ImageLimits) -> ScaledImage:
    """Return the first picture of a file, upright, in RGB, transparency on white, 16 bits scaled to 8.

    Damage inside the coded data of a JPEG file that libjpeg repairs (it only warns) is not noticed.

    Args:
        data: JPEG, PNG, WebP, BMP, TIFF or JPEG 2000; nothing else is even tried.
        limits: checked in the order bytes, format, pixels, side, time, before any pixel is decoded.

    Raises:
        SampleRejected: one of SampleEmpty, SampleTooLarge, ImageFormatUnsupported, ImageUnreadable,
            ImageTooManyPixels, ImageTooSmall, ImageTooSlow; never another exception.
    """
    if not data:
        raise SampleEmpty("the sample is empty: send the image file itself")
    if len(data) > limits.max_bytes:
        raise SampleTooLarge(f"the image file has more than {limits.max_bytes} bytes: send a smaller one")
    kind = _sniff(data)
    _silence_pillow()
    try:
        return _decode(data, kind, limits)
    except PIL.Image.DecompressionBombError as error:
        raise ImageTooManyPixels(_too_many_pixels(limits)) from error
    except _FOREIGN as error:
        raise ImageUnreadable(_UNREADABLE) from error


def _decode(data: bytes, kind: str, limits: ImageLimits) -> ScaledImage:
    orientation, scans = 1, 1
    if kind == "JPEG":
        jpeg = read_jpeg(data)
        data, orientation, scans = jpeg.stripped, jpeg.orientation, jpeg.scans
        plain = _plain_jpeg(data, scans, limits)
        if plain is not None:
            return ScaledImage(_turn_upright(plain, orientation), 1.0)
    elif kind == "TIFF" and tiff_pieces(data) > MAX_TIFF_PIECES:
        raise ImageTooSlow(f"the TIFF file has more than {MAX_TIFF_PIECES} strips or tiles: send a JPEG or PNG")
    with PIL.Image.open(io.BytesIO(data), formats=(kind,)) as picture:
        _check_size(picture.size, limits)
        _check_time(picture.size, kind, scans, limits)
        longer = max(picture.size)
        factor = _reduction(longer)
        if kind == "JPEG" and factor > 1:
            picture.draft(picture.mode, (picture.width // factor, picture.height // factor))
        pixels = _to_rgb(picture)
        if kind in {"PNG", "WEBP"}:
            orientation = orientation_of(picture.info.get("exif", b""))
    if max(pixels.shape) > WORKING_SIDE_PX:
        size = (max(1, pixels.shape[1] // factor), max(1, pixels.shape[0] // factor))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return ScaledImage(_turn_upright(pixels, orientation), max(pixels.shape) / longer)


def _plain_jpeg(data: bytes, scans: int, limits: ImageLimits) -> Image | None:
    """Decode an ordinary JPEG to the pixels that Pillow gives, in half the time; None leaves any other to Pillow."""
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
        if colour not in {"YCbCr", "Gray"} or max(width, height) > WORKING_SIDE_PX:
            return None
        _check_size((width, height), limits)
        _check_time((width, height), "JPEG", scans, limits)
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True))
    except ValueError:
        return None  # damaged: Pillow tells what can be repaired from what cannot


def _sniff(data: bytes) -> str:
    """Return the format that the first bytes announce.

    Raises:
        ImageFormatUnsupported: they announce none of `FORMATS`.
    """
    head = data[:12]
    if head.startswith(b"\xff\xd8"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:4] in {b"II*\0", b"MM\0*"}:
        return "TIFF"
    if head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        return "JPEG2000"
    raise ImageFormatUnsupported("the file is not a JPEG, PNG, WebP, BMP, TIFF or JPEG 2000 image")


def _silence_pillow() -> None:
    """Keep Pillow's remarks on odd files off the process's error stream.

    `warnings.catch_warnings` would do it for one call, but is not safe while other threads decode.
    """
    if ("ignore", None, Warning, re.compile(_PILLOW), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW)


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise ImageTooManyPixels(_too_many_pixels(limits))
    if min(size) < limits.min_side_px:
        raise ImageTooSmall(
            f"the image is {size[0]} x {size[1]} pixels, each side needs {limits.min_side_px}: send a larger one"
        )


def _too_many_pixels(limits: ImageLimits) -> str:
    return f"the image has more than {limits.max_pixels} pixels: send a smaller one"


def _check_time(size: tuple[int, int], kind: str, scans: int, limits: ImageLimits) -> None:
    expected_s = size[0] * size[1] * scans / PIXELS_PER_S[kind]
    if expected_s > limits.max_decode_s:
        raise ImageTooSlow(
            f"decoding the image could take {expected_s:.0f} s, allowed are {limits.max_decode_s:g} s: "
            "send a smaller image or a plain (not progressive) JPEG"
        )


def _reduction(longer_px: int) -> int:
    factor = 1
    while longer_px / factor > WORKING_SIDE_PX:
        factor *= 2
    return factor


def _to_rgb(picture: PIL.Image.Image) -> Image:
    """Decode and return (H, W, 3) uint8, RGB, as it lies in the file."""
    picture.load()
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return np.asarray(picture)
    if picture.mode in {"I", "F"} or picture.mode.startswith("I;"):
        grey = _to_8_bits(np.asarray(picture))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        opaque = PIL.Image.new("RGBA", picture.size, "white")
        opaque.alpha_composite(picture.convert("RGBA"))
        return np.asarray(opaque.convert("RGB"))
    return np.asarray(picture.convert("RGB"))


def _to_8_bits(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Scale wide grey values, whose full range Pillow does not tell for 32 bits, to 0..255."""
    if values.dtype.itemsize == 2:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    wide = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(wide.max(initial=0.0))
    is_real = np.issubdtype(values.dtype, np.floating)
    ranges = (1.0, 255.0, 65535.0) if is_real else (255.0, 65535.0)
    full = next((limit for limit in ranges if top <= limit), top)
    return (np.clip(wide, 0, None) * (255 / full)).astype(np.uint8)


def _turn_upright(pixels: Image, orientation: int) -> Image:
    """Undo an EXIF orientation. Source: EXIF 2.32, 4.6.4, tag 0x0112."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
