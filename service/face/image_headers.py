"""Reads the few header facts that must be known before a decoder may touch an untrusted image."""

import struct
from dataclasses import dataclass

ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4: 1 to 8
_PIECE_TAGS = {0x0111, 0x0144}  # TIFF 6.0: StripOffsets, TileOffsets

_EOI, _SOS, _APP0, _APP1, _APP14 = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE
_APPLICATION = range(0xE0, 0xF0)
_COMMENT = 0xFE
_WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD9)}
_EXIF = b"Exif\0\0"


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """A JPEG file without its metadata, and what that said."""

    stripped: bytes
    orientation: int  # 1 to 8
    scans: int


def read_jpeg(data: bytes) -> JpegFacts:
    """Return the file without application segments and comments, its orientation and its number of scans.

    What is dropped (EXIF, colour profiles, thumbnails, further pictures) is never parsed by the decoder, which
    closes off a whole class of crafted files. JFIF and Adobe segments stay: they name the colour space.

    Raises:
        ValueError: the segments before the first scan do not follow each other.

    Source: ITU-T T.81, annex B.
    """
    kept = [data[:2]]
    orientation, position = 1, 2
    while True:
        start = _next_marker(data, position)
        marker = data[start + 1]
        if marker == _SOS:
            break
        if marker in _WITHOUT_LENGTH:
            position = start + 2
            continue
        position = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        segment = data[start:position]
        if marker == _APP1 and segment[4:10] == _EXIF:
            orientation = orientation_of(segment[4:])
        if not (marker in _APPLICATION or marker == _COMMENT) or marker in {_APP0, _APP14}:
            kept.append(segment)
    # inside coded data 0xFF is always followed by 0, so this pair is a marker
    return JpegFacts(b"".join([*kept, data[start:]]), orientation, data.count(b"\xff\xda", start))


def _next_marker(data: bytes, position: int) -> int:
    start = data.find(b"\xff", position)
    # a marker may be preceded by any number of fill bytes 0xFF
    while start != -1 and data[start + 1 : start + 2] == b"\xff":
        start += 1
    if start == -1 or start + 4 > len(data) or data[start + 1] == _EOI:
        raise ValueError("no scan in a JPEG file")
    return start


def orientation_of(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that an EXIF block asks for; 1 when it is absent or damaged."""
    block = exif.removeprefix(_EXIF)
    try:
        order, start, entries = _directory(block)
        for index in range(entries):
            tag, _kind, _count, value = struct.unpack_from(order + "HHIH", block, start + 2 + 12 * index)
            if tag == ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except (struct.error, ValueError):
        return 1
    return 1


def tiff_pieces(data: bytes) -> int:
    """Return the number of strips or tiles that the first picture of a TIFF file claims to have.

    Raises:
        ValueError, struct.error: the first directory lies outside the file.
    """
    order, start, entries = _directory(data)
    entry_facts = [struct.unpack_from(order + "HHI", data, start + 2 + 12 * index) for index in range(entries)]
    return max((count for tag, _kind, count in entry_facts if tag in _PIECE_TAGS), default=0)


def _directory(block: bytes) -> tuple[str, int, int]:
    """Return byte order, position and number of entries of the first directory. Source: TIFF 6.0, section 2."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        raise ValueError("no byte order mark")
    magic, start = struct.unpack_from(order + "HI", block, 2)
    if magic != 42:
        raise ValueError("no TIFF structure")
    (entries,) = struct.unpack_from(order + "H", block, start)
    return order, start, entries
