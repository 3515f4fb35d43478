"""Images that are broken in every way that a scanner, a telephone, a network or an attacker breaks them."""

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image as PillowImage

from tests.faces import face_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000")


def _written(image: PillowImage.Image, name: str) -> bytes:
    out = io.BytesIO()
    image.save(out, name)
    return out.getvalue()


def _scene(rng: random.Random) -> PillowImage.Image:
    """A smooth coloured pattern without any face, 160 x 120."""
    down, across = np.mgrid[0:120, 0:160]
    waves = [np.sin(across / rng.uniform(5, 40)) + np.cos(down / rng.uniform(5, 40)) for _ in range(3)]
    return PillowImage.fromarray(((np.stack(waves, axis=-1) + 2) * 63).astype(np.uint8))


def truncated(rng: random.Random) -> bytes:
    """A face whose file ends too early."""
    whole = _written(face_of(rng.randrange(6)), rng.choice(("JPEG", "PNG", "WEBP", "BMP", "JPEG2000")))
    return whole[: rng.randrange(1, len(whole) * 3 // 5)]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(rng: random.Random) -> bytes:
    """A small file that claims, or is, a huge picture."""
    side = rng.choice((20_000, 60_000, 2**31 - 1))
    header = struct.pack(">IIBBBBB", side, side, 8, rng.choice((0, 2, 6)), 0, 0, 0)
    body = zlib.compress(bytes(rng.choice((10_000, 5_000_000))), 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def lying_header(rng: random.Random) -> bytes:
    """A header that claims another size, format or depth than the file has."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0")) + _written(_scene(rng), "WEBP")
    if kind == 1:
        whole = bytearray(_written(_scene(rng), "BMP"))
        struct.pack_into("<ii", whole, 18, rng.choice((-1, 0, 2**31 - 1, 50_000)), rng.choice((0, 2**30, 50_000)))
        return bytes(whole)
    if kind == 2:
        whole = bytearray(_written(_scene(rng), "PNG"))
        struct.pack_into(">II", whole, 16, 1000, 1000)  # and the checksum of the header no longer fits
        return bytes(whole)
    whole = bytearray(_written(_scene(rng), "JPEG"))
    start = whole.index(b"\xff\xc0")
    struct.pack_into(">HH", whole, start + 5, rng.choice((0, 65_500)), rng.choice((0, 65_500)))
    return bytes(whole)


def wrong_type(rng: random.Random) -> bytes:
    """Not one of the image formats, whatever its name says."""
    gif = io.BytesIO()
    _scene(rng).save(gif, "GIF")
    return rng.choice(
        (
            b"",
            b"\0",
            b"hello, this is a text file\n" * rng.randrange(1, 50),
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>",
            b"PK\x03\x04" + rng.randbytes(300),
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage",
            gif.getvalue(),
            rng.randbytes(rng.randrange(1, 5000)),
        )
    )


def fuzzed(rng: random.Random) -> bytes:
    """A picture without a face in which some bytes are others: unreadable, or readable and still without a face."""
    whole = bytearray(_written(_scene(rng), rng.choice(FORMATS)))
    for _ in range(rng.choice((1, 5, 50, 500))):
        whole[rng.randrange(len(whole))] = rng.randrange(256)
    return bytes(whole)


KINDS: tuple[Callable[[random.Random], bytes], ...] = (truncated, bomb, lying_header, wrong_type, fuzzed)


def broken_image(number: int) -> bytes:
    """Return the broken image of this number; the kinds take turns."""
    return KINDS[number % len(KINDS)](random.Random(number))
