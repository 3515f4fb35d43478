"""Who was erased while an import was unfinished: its further rows of that person must not bring the person back."""

import hashlib

from sqlalchemy import Connection, delete, select

from service.store.keys import insert_or_ignore
from service.store.tables import import_erasures, imports


def note_erasure(connection: Connection, gallery_id: str, subject_id: str) -> None:
    """Note the digest of an erased subject for each import into its gallery that is not finished."""
    unfinished = select(imports.c.source_id).where(imports.c.gallery_id == gallery_id, imports.c.done < imports.c.total)
    rows = [
        {"gallery_id": gallery_id, "source_id": source_id, "subject_digest": _digest(source_id, subject_id)}
        for source_id in connection.execute(unfinished).scalars()
    ]
    if rows:
        connection.execute(insert_or_ignore(connection.dialect.name, import_erasures), rows)


class Erased:
    """The subjects that were erased since an import began."""

    def __init__(self, connection: Connection, gallery_id: str, source_id: str) -> None:
        self._source_id = source_id
        self._digests = frozenset(
            connection.execute(
                select(import_erasures.c.subject_digest).where(
                    import_erasures.c.gallery_id == gallery_id, import_erasures.c.source_id == source_id
                )
            ).scalars()
        )

    def __contains__(self, subject_id: str) -> bool:
        return bool(self._digests) and _digest(self._source_id, subject_id) in self._digests


def forget_erasures(connection: Connection, gallery_id: str, source_id: str) -> None:
    """Delete what was noted for an import, once it is finished."""
    connection.execute(
        delete(import_erasures).where(
            import_erasures.c.gallery_id == gallery_id, import_erasures.c.source_id == source_id
        )
    )


def _digest(source_id: str, subject_id: str) -> str:
    """Return a SHA-256 (hex) that no table of digests of likely ids has: it is salted with the import."""
    return hashlib.sha256(f"{source_id} {subject_id}".encode()).hexdigest()
