"""The file of a sealed segment: written once, encrypted, never changed.

    header    98 bytes in the clear: magic, version, dimension, count, lengths, the file's own key wrapped
    metadata  JSON      in pieces of 1 MiB, each encrypted by itself
    ids       int64     in pieces of 1 MiB
    codes     opaque    in pieces of 1 MiB
    rows      float32   each encrypted by itself: a shortlist is read and decrypted alone

The wrapped key is bound to the header and the file's name, each piece to the name, its part and its number. The
checksum leaves out the header, which guards itself, so a new master key rewrites headers and no checksum.
"""

import hashlib
import json
import os
import re
import secrets
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.durable_files import durable_file
from service.gallery.damage import Damage, SnapshotDamaged, reading_errors
from service.gallery.file_cipher import TAG_BYTES, FileCipher
from service.gallery.segment_layout import CLEAR_BYTES, HEADER_BYTES, MAX_DIMENSION, PIECE_BYTES, Layout

Codes = npt.NDArray[np.uint8]
ReferenceIds = npt.NDArray[np.int64]
Metadata = dict[str, object]

SEGMENT_NAME = re.compile(r"segment-[0-9a-f]{32}\.sealed")
_BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment before it is written.

    ids: (n,) int64. codes: (bytes,) uint8, a serialised search structure, opaque here. rows: (n, D) float32, the i-th
    that of ids[i]. metadata: JSON.
    """

    ids: ReferenceIds
    codes: Codes
    rows: Embeddings
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A written segment, as the manifest knows it. sha256: hexadecimal, of all that follows the header."""

    name: str
    sha256: str
    byte_length: int
    count: int


class OpenedSegment:
    """A sealed segment to read from; ids, metadata and codes are decrypted, rows stay on the disk until asked for.

    Threads may share it. Its file may be deleted meanwhile; the descriptor is closed when the last reader lets go.
    """

    def __init__(self, descriptor: int, file: SegmentFile, layout: Layout, cipher: FileCipher, *, verify: bool) -> None:
        """Take over `descriptor`. Raises SnapshotDamaged."""
        # by a finaliser, not a `close`: a search may still hold a segment that a compaction has replaced
        weakref.finalize(self, os.close, descriptor).atexit = False  # threads may read until the end
        self._descriptor, self._layout, self._cipher = descriptor, layout, cipher
        self.file = file
        if verify:
            self._verify()
        self.metadata = _parse_metadata(self._part(b"META", HEADER_BYTES, layout.metadata_bytes).tobytes())
        self.ids: ReferenceIds = self._part(b"IDS ", layout.ids_start, 8 * layout.count).view("<i8")
        self.ids.flags.writeable = False
        self._codes: Codes | None = self._part(b"CODE", layout.codes_start, layout.codes_bytes)

    def __len__(self) -> int:
        return self._layout.count

    @property
    def dimension(self) -> int:
        return self._layout.dimension

    def take_codes(self) -> Codes:
        """Hand over the codes, (bytes,) uint8, once: whoever builds a search structure need not keep both in memory."""
        codes, self._codes = self._codes, None
        if codes is None:
            raise RuntimeError("the codes were taken already")
        return codes

    def rows(self, indices: npt.NDArray[np.int64]) -> Embeddings:
        """Decrypt some rows, in the order asked for.

        Args:
            indices: (k,) int64, 0..n-1; repeats are fine.

        Returns:
            (k, D) float32, not writable.

        Raises:
            SnapshotDamaged: one of them is not what was written.
            IndexError: there is no such row.
        """
        if len(indices) and (indices.min() < 0 or indices.max() >= self._layout.count):
            raise IndexError("no such row in the segment")
        firsts = np.flatnonzero(np.diff(indices, prepend=-2) != 1)  # of each run of rows that lie side by side
        sizes = np.diff(firsts, append=len(indices))
        runs = list(zip(indices[firsts].tolist(), sizes.tolist(), strict=True))
        with reading_errors("a row of a segment"):
            # asked for together, rows that are not in memory come side by side: 17 microseconds a row instead of 100
            for first, size in runs:
                os.posix_fadvise(self._descriptor, *self._place(first, size), os.POSIX_FADV_WILLNEED)
            found = self._cipher.unseal(b"ROWS", self._sealed_rows(runs))
        return np.frombuffer(found, "<f4").reshape(len(indices), self._layout.dimension)

    def _sealed_rows(self, runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, memoryview]]:
        # pread rather than a memory map: a map would keep the interpreter's lock during a page fault, and a bad sector
        # or a truncated file would end the process (SIGBUS) instead of raising
        stride = self._layout.row_stride
        for first, size in runs:
            start, length = self._place(first, size)
            sealed = memoryview(os.pread(self._descriptor, length, start))
            for row in range(size):
                yield first + row, sealed[row * stride : (row + 1) * stride]

    def _place(self, first: int, size: int) -> tuple[int, int]:
        """Where in the file `size` rows from `first` on begin, and how many bytes they take."""
        return self._layout.rows_start + first * self._layout.row_stride, size * self._layout.row_stride

    def _part(self, part: bytes, start: int, length: int) -> npt.NDArray[np.uint8]:
        found = np.empty(length, np.uint8)
        for number, first in enumerate(range(0, length, PIECE_BYTES)):
            size = min(PIECE_BYTES, length - first)
            sealed = _read(self._descriptor, start + first + number * TAG_BYTES, size + TAG_BYTES)
            self._cipher.unseal_into(part, number, sealed, found[first : first + size].data)
        return found

    def _verify(self) -> None:
        digest = hashlib.sha256()
        for start in range(HEADER_BYTES, self._layout.end, PIECE_BYTES):
            digest.update(_read(self._descriptor, start, min(PIECE_BYTES, self._layout.end - start)))
        if digest.hexdigest() != self.file.sha256:
            raise SnapshotDamaged(Damage.CHECKSUM, "the checksum of a segment is not the one in the manifest")


def write_segment(folder: Path, key: bytes, segment: Segment) -> SegmentFile:
    """Write a segment under a new name; when it returns, the file is on the disk.

    It belongs to the index only once a manifest names it.

    Raises:
        VarUnusable: the folder cannot be written, or is full.
        ValueError: the arrays of the segment do not fit together.
    """
    metadata = json.dumps(segment.metadata).encode()
    layout = Layout(_dimension(segment), len(segment.ids), len(metadata), len(segment.codes))
    name = f"segment-{secrets.token_hex(16)}.sealed"
    cipher, wrapped = FileCipher.draw(key, name, layout.pack())
    digest = hashlib.sha256()
    with durable_file(folder / name) as file:
        file.write(layout.pack() + wrapped)
        for piece in _sealed_pieces(cipher, segment, metadata):
            digest.update(piece)
            file.write(piece)
    return SegmentFile(name, digest.hexdigest(), layout.end, layout.count)


def open_segment(path: Path, key: bytes, expected: SegmentFile, *, verify: bool = False) -> OpenedSegment:
    """Open the file of a segment and decrypt all but its rows.

    Every byte is authenticated when it is decrypted; `verify` also reads the rows now, and compares the checksum.

    Raises:
        SnapshotDamaged: it is not the file that the manifest describes, byte for byte as written.
    """
    with reading_errors("a segment"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        layout, wrapped = _read_header(descriptor, expected)
        cipher = FileCipher.unwrap(key, expected.name, layout.pack(), wrapped)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenedSegment(descriptor, expected, layout, cipher, verify=verify)


def _dimension(segment: Segment) -> int:
    """Return the dimension of a segment that may be written. Raises ValueError."""
    ids, rows = segment.ids, segment.rows
    types = ids.dtype == np.int64 and segment.codes.dtype == np.uint8 and rows.dtype == np.float32
    if not types or (ids.ndim, segment.codes.ndim, rows.ndim) != (1, 1, 2) or len(ids) != len(rows):
        raise ValueError("a segment has (n,) int64 ids, (bytes,) uint8 codes and (n, D) float32 rows")
    dimension = int(rows.shape[1])
    if not 0 < dimension <= MAX_DIMENSION:
        raise ValueError("the dimension of a segment is 1 to 65,535")
    return dimension


def _sealed_pieces(cipher: FileCipher, segment: Segment, metadata: bytes) -> Iterator[bytes]:
    """All that follows the header, in order."""
    ids = segment.ids.astype("<i8").view(np.uint8)
    codes = np.ascontiguousarray(segment.codes)
    for part, data in ((b"META", memoryview(metadata)), (b"IDS ", ids.data), (b"CODE", codes.data)):
        for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
            yield cipher.seal(part, number, data[start : start + PIECE_BYTES])
    for first in range(0, len(segment.rows), _BLOCK_ROWS):
        block = np.ascontiguousarray(segment.rows[first : first + _BLOCK_ROWS], "<f4").view(np.uint8)
        yield b"".join([cipher.seal(b"ROWS", first + row, block[row].data) for row in range(len(block))])


def _read_header(descriptor: int, expected: SegmentFile) -> tuple[Layout, bytes]:
    header = _read(descriptor, 0, HEADER_BYTES)
    layout = Layout.unpack(header)
    if layout.dimension == 0 or layout.count != expected.count:
        raise SnapshotDamaged(Damage.HEADER, "the header of a segment does not fit the manifest")
    # compared before any part is read, so that a header that lies cannot ask for more memory than the file has
    if not layout.end == expected.byte_length == os.fstat(descriptor).st_size:
        raise SnapshotDamaged(Damage.LENGTH, "the length of a segment is not the one in the manifest")
    return layout, header[CLEAR_BYTES:]


def _parse_metadata(data: bytes) -> Metadata:
    try:
        metadata = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SnapshotDamaged(Damage.CONTENTS, "the metadata of a segment is not JSON") from error
    if not isinstance(metadata, dict):
        raise SnapshotDamaged(Damage.CONTENTS, "the metadata of a segment is not an object")
    return metadata


def _read(descriptor: int, start: int, length: int) -> bytes:
    with reading_errors("a segment"):
        found = os.pread(descriptor, length, start)
    if len(found) != length:
        raise SnapshotDamaged(Damage.LENGTH, "a segment ends too early")
    return found
