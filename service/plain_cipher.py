"""No encryption at all: for benchmarks, and for tests of other things. The service never uses it."""

from collections.abc import Sequence

from service.errors import StoreUnavailable
from service.key_ring import GALLERY_HEADER, HEADER

NO_KEYS = "this record is encrypted, and this process has no keys"


class PlainCipher:
    """`service.ports.SubjectCipher` that encrypts nothing."""

    is_plain = True

    def take_keys(self, _gallery_id: str, count: int) -> list[str | None]:
        return [None] * count

    def give_back(self, _gallery_id: str, _key_ids: Sequence[str | None]) -> None:
        """There are none."""

    def seal(self, _gallery_id: str, key_id: str | None, plain: bytes, _context: bytes) -> bytes:
        if key_id is not None:
            raise StoreUnavailable(NO_KEYS)
        return plain

    def open(self, _gallery_id: str, sealed: bytes, _context: bytes) -> bytes:
        if sealed.startswith(HEADER):
            raise StoreUnavailable(NO_KEYS)
        return sealed

    def open_all(self, gallery_id: str, values: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        return [self.open(gallery_id, sealed, context) for sealed, context in values]

    def seal_of_gallery(self, _gallery_id: str, plain: bytes, _context: bytes) -> bytes:
        return plain

    def open_of_gallery(self, _gallery_id: str, sealed: bytes, _context: bytes) -> bytes:
        if sealed.startswith(GALLERY_HEADER):
            raise StoreUnavailable(NO_KEYS)
        return sealed

    def destroy(self, _key_ids: Sequence[str]) -> None:
        raise StoreUnavailable(NO_KEYS)
