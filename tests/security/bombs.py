"""Attacks by images: small files that would fill the memory or the time of whoever decodes them."""

import io
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
from PIL import Image as PillowImage

from service.errors import SampleRejected, all_errors
from tests.broken_images import png_chunk
from tests.server import Server

MAX_GROWTH_MIB = 250
"""What one refused image may take for a moment, over all processes: the file, its copies, one small picture."""
MAX_S = 10.0
"""For an answer on a busy machine; an honest photograph takes a tenth of a second."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DECODED = {
    "no_face",
    "several_faces",
    "face_too_small",
    "quality_too_low",
    "landmarks_degenerate",
    "template_unusable",
}
_REFUSED = {error.code for error in all_errors(SampleRejected)} - _DECODED


def image_bombs(server: Server, thrown: Iterable[tuple[str, bytes]] | None = None) -> list[str]:
    """Each bomb is refused before its pixels are there, soon, and without filling the memory; the service goes on."""
    url = f"{server.url}/v1/galleries/default/identifications"
    found = []
    with httpx.Client(timeout=60) as http:
        http.post(url, files={"sample": plain_picture()})  # the first one warms the workers up
        workers = processes(server)
        for name, data in bombs() if thrown is None else thrown:
            before, start = reset_peak(server), time.monotonic()
            answer = http.post(url, files={"sample": data})
            took_s, grown = time.monotonic() - start, peak_mib(server) - before
            if answer.status_code != 422 or answer.json()["code"] not in _REFUSED:
                found.append(f"{name}: {answer.status_code} {answer.json().get('code')}, so it was decoded")
            if took_s > MAX_S:
                found.append(f"{name}: took {took_s:.1f} s")
            if grown > MAX_GROWTH_MIB:
                found.append(f"{name}: took {grown:.0f} MiB")
        if processes(server) != workers:
            found.append("a worker died")
    return found


def bombs() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each; the largest has 300 kB."""
    yield "PNG of 60,000 x 60,000 zeros", png(60_000, 60_000, 20_000_000)
    yield "PNG of 2^31 - 1 columns", png(2**31 - 1, 2**31 - 1, 1000)
    yield over_the_limit()
    yield "PNG of one row and 50 million columns", png(50_000_000, 1, 50_000_001)
    yield "PNG with a text that unpacks to 100 MB", png(64, 64, 65 * 64, _packed(b"zTXt", b"a\0\0", 100_000_000))
    yield "PNG with a profile that unpacks to 100 MB", png(64, 64, 65 * 64, _packed(b"iCCP", b"a\0\0", 100_000_000))
    yield "PNG with 20,000 chunks", png(60_000, 60_000, 10, png_chunk(b"tEXt", b"a\0b") * 20_000)
    yield "PNG of 144 million pixels, interlaced", png(12_000, 12_000, 100_000, interlaced=True)
    yield "BMP of 60,000 x 60,000", _bmp(60_000, 60_000)
    yield "BMP of 60,000 x 60,000, run lengths", _bmp(60_000, 60_000, compression=1)
    yield "JPEG of 65,500 x 65,500", _jpeg(65_500, 65_500)
    yield "JPEG of 300 scans", _jpeg_of_scans(3_000, 3_000, 300)
    yield "TIFF of 60,000 x 60,000 in strips", _tiff(60_000, 60_000)
    yield "TIFF of a million strips", _tiff(64, 1_000_000)
    yield "WebP of 16,383 x 16,383", _webp()
    yield "JPEG 2000 of 2^31 columns", _jpeg_2000()
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg' width='99999' height='99999'/>"
    yield "PDF", b"%PDF-1.7"
    yield "GIF of 60,000 x 60,000", b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\0\0\0;"


def over_the_limit() -> tuple[str, bytes]:
    """Return a picture that is whole, and has 81 million pixels where 50 are allowed."""
    return "PNG a little over the limit, whole", png(9_000, 9_000, 9_000 * 9_001)


def plain_picture() -> bytes:
    """A grey picture without a face."""
    out = io.BytesIO()
    PillowImage.new("RGB", (64, 64), "grey").save(out, "PNG")
    return out.getvalue()


def png(width: int, height: int, unpacked: int, chunks: bytes = b"", *, interlaced: bool = False) -> bytes:
    """A grey PNG that claims a size and unpacks to so many zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, int(interlaced))
    body = png_chunk(b"IHDR", header) + chunks + png_chunk(b"IDAT", zeros(unpacked)) + png_chunk(b"IEND", b"")
    return _SIGNATURE + body


def zeros(size: int) -> bytes:
    """So many zeros, packed without having them all at once."""
    packer = zlib.compressobj(9)
    block = bytes(1_000_000)
    packed = b"".join(packer.compress(block) for _ in range(size // len(block)))
    return packed + packer.compress(bytes(size % len(block))) + packer.flush()


def _packed(kind: bytes, head: bytes, size: int) -> bytes:
    return png_chunk(kind, head + zeros(size))


def _bmp(width: int, height: int, compression: int = 0) -> bytes:
    depth = 8 if compression else 24
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, 0, 0, 0, 256 if compression else 0, 0)
    palette = bytes(1024) if compression else b""
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + 1000, 0, 0, start) + info + palette + bytes(1000)


def _saved(size: tuple[int, int], kind: str, **options: object) -> bytearray:
    out = io.BytesIO()
    PillowImage.new("RGB", size, "grey").save(out, kind, **options)
    return bytearray(out.getvalue())


def _jpeg(width: int, height: int) -> bytes:
    whole = _saved((64, 64), "JPEG")
    struct.pack_into(">HH", whole, whole.index(b"\xff\xc0") + 5, height, width)
    return bytes(whole)


def _jpeg_of_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive picture whose last scan comes again and again: each is worked on for all pixels."""
    whole = bytes(_saved((64, 64), "JPEG", progressive=True))
    start = whole.rindex(b"\xff\xda")
    changed = bytearray(whole[:start] + whole[start:-2] * scans + b"\xff\xd9")
    struct.pack_into(">HH", changed, changed.index(b"\xff\xc2") + 5, height, width)
    return bytes(changed)


def _tiff(width: int, height: int) -> bytes:
    """One row a strip; where the strips are is not even in the file."""
    tags = (
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, height, 8), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, height, 8),
    )  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4 + 8 * min(height, 20_000))


def _webp() -> bytes:
    whole = _saved((64, 64), "WEBP", lossless=True)
    at = whole.index(b"VP8L") + 9
    struct.pack_into("<I", whole, at, (16_382 | 16_382 << 14))
    return bytes(whole)


def _jpeg_2000() -> bytes:
    whole = _saved((64, 64), "JPEG2000", no_jp2=True)
    struct.pack_into(">II", whole, 8, 2**31 - 1, 2**31 - 1)  # SIZ: Xsiz, Ysiz
    return bytes(whole)


def processes(server: Server) -> set[int]:
    """Return the ids of a server and all that it started."""
    found, waiting = set(), [server.process.pid]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            waiting += [int(child) for child in thread.read_text().split()]
    return found


def reset_peak(server: Server) -> float:
    """Begin to measure the peak anew (proc(5), clear_refs); return the memory that is taken now, in MiB."""
    for pid in processes(server):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_mib(server)


def peak_mib(server: Server) -> float:
    """Return the sum of the peaks of resident memory, MiB."""
    return _sum_of(server, "VmHWM")


def resident_mib(server: Server) -> float:
    """Return the resident memory of all processes, MiB."""
    return _sum_of(server, "VmRSS")


def _sum_of(server: Server, name: str) -> float:
    total = 0
    for pid in processes(server):
        status = Path(f"/proc/{pid}/status").read_text()
        total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))
    return total / 1024
