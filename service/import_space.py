"""How much disk an import takes, measured once and stated before the first row is written."""

from dataclasses import dataclass

MARGIN = 1.15  # indexes of ids in no order are filled less densely than those that were measured
LOG_BYTES = 250_000_000  # SQLite's write-ahead log: 80 to 165 MB in imports of a million

PAGE_BYTES = 8192  # of SQLite, as the store makes its files; those made before keep the 4096 they have
_PAGE_OVERHEAD = 12
_CELL_BESIDE_EMBEDDING = 70  # of the templates table, without the ids
# what the other tables and all indexes hold of one template: measured, less the ids themselves
_ELSEWHERE = 700
_COPIES_OF_SUBJECT_ID, _COPIES_OF_ENCOUNTER_ID = 3, 7
_POSTGRESQL_FACTOR = 1.6  # row headers, values kept out of line, indexes of all of that
_SEALED_ROW_OVERHEAD = 16  # authentication of each encrypted row
_INDEX_ID_BYTES = _INDEX_PLACE_BYTES = 8


@dataclass(frozen=True, slots=True)
class SpaceNeeded:
    """Bytes on disk."""

    record: int
    index: int  # the encrypted files of the search index, written by the service once it follows

    @property
    def total(self) -> int:
        return self.record + self.index


def space_needed(
    rows: int, dimension: int, *, subject_id_chars: int, encounter_id_chars: int, page_bytes: int = PAGE_BYTES
) -> SpaceNeeded:
    """Return what `rows` further templates take in the embedded record and in the files of the index.

    Args:
        rows: templates.
        dimension: of each.
        subject_id_chars: of a usual subject_id.
        encounter_id_chars: of a usual encounter_id.
        page_bytes: of the embedded record as it is.
    """
    cell = 4 * dimension + _CELL_BESIDE_EMBEDDING + encounter_id_chars
    rows_a_page = (page_bytes - _PAGE_OVERHEAD) // cell
    template = page_bytes / rows_a_page if rows_a_page else cell + page_bytes / 2
    ids = _COPIES_OF_SUBJECT_ID * subject_id_chars + _COPIES_OF_ENCOUNTER_ID * encounter_id_chars
    record = rows * (template + _ELSEWHERE + ids) * MARGIN + LOG_BYTES
    # coarse codes are an eighth to a quarter of a byte a dimension, each with its place; fine ones half a byte
    codes = dimension / 4 + _INDEX_PLACE_BYTES + dimension / 2
    index = rows * (4 * dimension + _SEALED_ROW_OVERHEAD + _INDEX_ID_BYTES + codes) * MARGIN
    return SpaceNeeded(round(record), round(index))


def on_postgresql(needed: SpaceNeeded) -> SpaceNeeded:
    """Return the same for a database server: more for the record; the files of the index are kept beside it."""
    return SpaceNeeded(round(needed.record * _POSTGRESQL_FACTOR), needed.index)
