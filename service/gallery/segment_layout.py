"""Where the parts of a segment's file lie; what its header says in the clear."""

import struct
from dataclasses import dataclass
from typing import Self

from service.gallery.damage import Damage, SnapshotDamaged
from service.gallery.file_cipher import TAG_BYTES, WRAPPED_KEY_BYTES

_MAGIC = b"BIODEDUPSG"
_FORMAT_VERSION = 4
_CLEAR = struct.Struct(">10sHHQQQ")
CLEAR_BYTES = _CLEAR.size
HEADER_BYTES = CLEAR_BYTES + WRAPPED_KEY_BYTES
# AESGCM holds the interpreter's lock: pieces of 16 MiB kept every request waiting for 2 to 12 ms each
PIECE_BYTES = 1 << 20
MAX_DIMENSION = 2**16 - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The clear fields of a header, and where the parts lie."""

    dimension: int
    count: int
    metadata_bytes: int
    codes_bytes: int

    def pack(self) -> bytes:
        return _CLEAR.pack(_MAGIC, _FORMAT_VERSION, self.dimension, self.count, self.metadata_bytes, self.codes_bytes)

    @classmethod
    def unpack(cls, header: bytes) -> Self:
        """Return what a header of HEADER_BYTES says. Raises SnapshotDamaged."""
        magic, version, *numbers = _CLEAR.unpack_from(header)
        if (magic, version) != (_MAGIC, _FORMAT_VERSION):
            raise SnapshotDamaged(Damage.FOREIGN_FORMAT, "a segment is of another version, or is none")
        return cls(*numbers)

    @property
    def row_stride(self) -> int:
        return 4 * self.dimension + TAG_BYTES

    @property
    def ids_start(self) -> int:
        return HEADER_BYTES + _sealed_bytes(self.metadata_bytes)

    @property
    def codes_start(self) -> int:
        return self.ids_start + _sealed_bytes(8 * self.count)

    @property
    def rows_start(self) -> int:
        return self.codes_start + _sealed_bytes(self.codes_bytes)

    @property
    def end(self) -> int:
        return self.rows_start + self.count * self.row_stride


def _sealed_bytes(length: int) -> int:
    """How long a part of `length` bytes is once its pieces are encrypted."""
    return length + TAG_BYTES * -(-length // PIECE_BYTES)
