"""What can be wrong with a file of the gallery index: never a reason to stop, always one to rebuild."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from service.errors import IndexUnavailable


class Damage(StrEnum):
    """Why a file cannot be used; stable, for logs and metrics."""

    MISSING = "missing"
    UNREADABLE = "unreadable"  # the operating system refuses: no permission, a bad sector
    LENGTH = "length"
    FOREIGN_FORMAT = "foreign_format"  # another kind of file, or another version of ours
    HEADER = "header"
    CHECKSUM = "checksum"
    AUTHENTICATION = "authentication"  # changed, moved, or written under another master key
    CONTENTS = "contents"  # decrypted well, and is still not what it should be: a bug of the writer
    FOREIGN_GALLERY = "foreign_gallery"


class SnapshotDamaged(Exception):
    """A file of the index is not what was written. Internal: the index is set aside and rebuilt, no caller sees it."""

    def __init__(self, reason: Damage, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def index_damaged() -> IndexUnavailable:
    return IndexUnavailable("a file of the gallery index is damaged; it is filled from the record")


@contextmanager
def reading_errors(what: str) -> Iterator[None]:
    """Turn a refusal of the operating system into SnapshotDamaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise SnapshotDamaged(Damage.MISSING, f"{what} is missing") from error
    except OSError as error:
        reason = error.strerror or "no access"
        raise SnapshotDamaged(Damage.UNREADABLE, f"{what} cannot be read: {reason}") from error
