"""Writing imported templates: many encounters in one transaction, each with a change of its own."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, text, update

from service.audit_chain import AuditEvent, NewEntry
from service.domain import EncounterFacts, EncounterStatus, Gallery, OutcomeKind, SampleFinding
from service.errors import EncounterExists, PackMismatch
from service.import_request import ImportBlock, ImportSource, ImportState
from service.ports import SubjectCipher
from service.store.auditing import Recorder
from service.store.bulk import insert_rows
from service.store.import_erasures import Erased, forget_erasures
from service.store.keys import insert_or_ignore
from service.store.parts import in_parts
from service.store.reading import read_gallery
from service.store.rows import finding_json
from service.store.sealing import Sealing, keys_of
from service.store.several import searched_counts, several_growth
from service.store.tables import changes, encounters, enrolments, galleries, imports, subjects, templates

IMPORT_WARNING = "Imported, not compared with anyone: sweep the gallery."

_LOCK = select(galleries.c.gallery_id).where(galleries.c.gallery_id == bindparam("wanted")).with_for_update()
_KNOWN = select(encounters).where(
    encounters.c.gallery_id == bindparam("wanted"),
    encounters.c.encounter_id.in_(bindparam("among", expanding=True)),
)
_ANALYZE = text("ANALYZE subjects, encounters, templates, enrolments, changes")
_LAST_ID_OF_SQLITE = text("SELECT seq FROM sqlite_sequence WHERE name = 'templates'")
_IDS_OF_POSTGRESQL = text(
    "SELECT nextval(pg_get_serial_sequence('templates', 'reference_id')) FROM generate_series(1, :count)"
)


def import_state(connection: Connection, gallery_id: str, source_id: str) -> ImportState:
    """Return how far the import of a source is, also when it never began. Raises GalleryNotFound."""
    row = connection.execute(
        select(imports.c.done, imports.c.added).where(
            imports.c.gallery_id == gallery_id, imports.c.source_id == source_id
        )
    ).one_or_none()
    if row is None:
        read_gallery(connection, gallery_id)
        return ImportState(0, 0)
    return ImportState(row.done, row.added)


def check_import(connection: Connection, gallery_id: str, source: ImportSource) -> None:
    """Raises EncounterExists: the import of this source began with other rows."""
    begun_with = connection.execute(
        select(imports.c.content_digest).where(
            imports.c.gallery_id == gallery_id, imports.c.source_id == source.source_id
        )
    ).scalar_one_or_none()
    if begun_with not in {None, source.content_digest}:
        raise EncounterExists(
            "rows of these names were imported before, and some of the file are others now: "
            "give the changed rows a file and encounter ids of their own"
        )


def write_block(
    connection: Connection,
    gallery_id: str,
    source: ImportSource,
    block: ImportBlock,
    *,
    now: datetime,
    recorder: Recorder,
    cipher: SubjectCipher,
) -> ImportState:
    """Take the gallery's lock and write the rows of `block` that are not in the record yet, the caller commits.

    Nothing is written where the import stands elsewhere: somebody else was at it. Rows of a subject that was erased
    since the import began are left out.

    Raises:
        GalleryNotFound
        PackMismatch: the gallery holds templates of another model.
        EncounterExists: an encounter of this id is there with other content, or the import began with other rows.
    """
    connection.execute(_LOCK, {"wanted": gallery_id})
    gallery = read_gallery(connection, gallery_id)
    check_import(connection, gallery_id, source)
    state = import_state(connection, gallery_id, source.source_id)
    if state.done != block.start:
        return state
    if gallery.pack_id != source.pack_id or gallery.model_id not in {None, source.model_id}:
        raise PackMismatch(f"the gallery holds templates of {gallery.model_id or gallery.pack_id}")
    sealing = Sealing(cipher, gallery_id)
    places = _unknown(connection, gallery_id, block, Erased(connection, gallery_id, source.source_id), sealing)
    if places:
        _Block(connection, gallery, source, block=block, places=places, now=now, cipher=cipher).write()
    state = ImportState(block.start + len(block.names), state.added + len(places))
    _set_state(connection, gallery_id, source, state, now)
    if state.done == source.total:
        forget_erasures(connection, gallery_id, source.source_id)
    _learn_sizes(connection, block)
    if block.start == 0:
        begun = NewEntry(AuditEvent.IMPORT_BEGUN, details={"rows": source.total})
        recorder.write(connection, gallery_id, begun, now)
    if state.done == source.total:
        counts = {"rows": state.done, "templates": state.added}
        recorder.write(connection, gallery_id, NewEntry(AuditEvent.IMPORT_ENDED, details=counts), now)
    return state


def _learn_sizes(connection: Connection, block: ImportBlock) -> None:
    """Let PostgreSQL look at its tables whenever they have doubled.

    It plans the checks of foreign keys once a connection; planned for empty tables, they soon read whole ones: 190 rows
    a second after 10,000, instead of thousands.
    """
    number = block.start // len(block.names)
    if connection.dialect.name == "postgresql" and number & (number - 1) == 0:
        connection.execute(_ANALYZE)


def _unknown(
    connection: Connection, gallery_id: str, block: ImportBlock, erased: Erased, sealing: Sealing
) -> list[int]:
    """Return the places in the block whose encounter is not in the record. Raises EncounterExists."""
    rows = [
        row
        for part in in_parts([name.encounter_id for name in block.names])
        for row in connection.execute(_KNOWN, {"wanted": gallery_id, "among": part})
    ]
    opened = sealing.open_facts(rows)
    known = {row.encounter_id: free.content_digest for row, free in zip(rows, opened, strict=True) if free is not None}
    places = []
    for place, (name, digest) in enumerate(zip(block.names, block.digests, strict=True)):
        if name.subject_id in erased:
            continue
        if name.encounter_id not in known:
            known[name.encounter_id] = digest
            places.append(place)
        elif known[name.encounter_id] != digest:
            raise EncounterExists(
                f"row {block.start + place}: its encounter is in the gallery already, with other content"
            )
    return places


def _set_state(
    connection: Connection, gallery_id: str, source: ImportSource, state: ImportState, now: datetime
) -> None:
    key = {"gallery_id": gallery_id, "source_id": source.source_id}
    first = {**key, "total": source.total, "done": 0, "added": 0, "created_at": now, "updated_at": now}
    first["content_digest"] = source.content_digest
    connection.execute(insert_or_ignore(connection.dialect.name, imports), first)
    connection.execute(
        update(imports)
        .where(imports.c.gallery_id == gallery_id, imports.c.source_id == source.source_id)
        .values(done=state.done, added=state.added, updated_at=now)
    )


class _Block:
    """The rows of one block that are new, on their way into the tables, with the gallery's lock held."""

    def __init__(
        self,
        connection: Connection,
        gallery: Gallery,
        source: ImportSource,
        *,
        block: ImportBlock,
        places: Sequence[int],
        now: datetime,
        cipher: SubjectCipher,
    ) -> None:
        self._cipher = cipher
        self._sealing = Sealing(cipher, gallery.gallery_id)
        self._connection = connection
        self._gallery = gallery
        self._source = source
        self._names = [block.names[place] for place in places]
        self._digests = [block.digests[place] for place in places]
        self._embeddings = block.embeddings[list(places)]
        self._now = now
        # a change for each encounter, as an enrolment makes it: listings, and those who follow the log, count on that
        self._numbers = range(gallery.last_seq + 1, gallery.last_seq + 1 + len(places))
        self._in_gallery = {"gallery_id": gallery.gallery_id}

    def write(self) -> None:
        reference_ids = _new_reference_ids(self._connection, len(self._names))
        keys = self._insert_subjects()
        self._insert_encounters(keys)
        self._insert_templates(keys, reference_ids)
        self._insert_findings(reference_ids)
        self._insert_changes(reference_ids)
        growth = Counter(name.subject_id for name in self._names)
        several = several_growth(searched_counts(self._connection, self._gallery, list(growth)), growth)
        self._connection.execute(
            update(galleries)
            .where(galleries.c.gallery_id == self._gallery.gallery_id)
            .values(
                last_seq=self._numbers[-1],
                template_count=galleries.c.template_count + len(self._names),
                several_count=galleries.c.several_count + several,
                model_id=func.coalesce(galleries.c.model_id, self._source.model_id),
            )
        )

    def _insert_subjects(self) -> dict[str, str | None]:
        """Return the id of the data key of each subject of the block."""
        subject_ids = list(dict.fromkeys(name.subject_id for name in self._names))
        known = keys_of(self._connection, self._gallery.gallery_id, subject_ids)
        new = [each for each in subject_ids if each not in known]
        drawn = dict(zip(new, self._cipher.take_keys(self._gallery.gallery_id, len(new)), strict=True))
        if drawn:
            people = {**self._in_gallery, "created_at": self._now}
            insert_rows(self._connection, subjects, people, ["subject_id", "key_id"], drawn.items())
        return {**known, **drawn}

    def _insert_encounters(self, keys: Mapping[str, str | None]) -> None:
        free = [
            self._sealing.facts(keys[name.subject_id], name.encounter_id, EncounterFacts(name.captured_at), digest)
            for name, digest in zip(self._names, self._digests, strict=True)
        ]
        insert_rows(
            self._connection,
            encounters,
            {
                **self._in_gallery,
                "created_at": self._now,
                "status": EncounterStatus.ACTIVE.value,
                "biometric_exception": None,
            },
            ["encounter_id", "subject_id", "seq", "status_seq", *free[0]],
            (
                (name.encounter_id, name.subject_id, seq, seq, *facts.values())
                for name, facts, seq in zip(self._names, free, self._numbers, strict=True)
            ),
        )

    def _insert_templates(self, keys: Mapping[str, str | None], reference_ids: Sequence[int]) -> None:
        pack_id = self._source.pack_id
        insert_rows(
            self._connection,
            templates,
            {
                **self._in_gallery,
                "position": 0,
                "pack_id": pack_id,
                "model_id": self._source.model_id,
                "verifies": True,
                "active": True,
                # nobody knows what the photograph was like
                "quality": None,
                "box": None,
            },
            ["reference_id", "encounter_id", "embedding"],
            (
                (
                    reference_id,
                    name.encounter_id,
                    self._sealing.template(keys[name.subject_id], name.encounter_id, 0, pack_id, embedding),
                )
                for reference_id, name, embedding in zip(reference_ids, self._names, self._embeddings, strict=True)
            ),
        )

    def _insert_findings(self, reference_ids: Sequence[int]) -> None:
        insert_rows(
            self._connection,
            enrolments,
            {
                **self._in_gallery,
                "outcome": OutcomeKind.NOT_COMPARED.value,
                "thresholds": None,
                "searched": None,
                "continuity": None,
                "warnings": (IMPORT_WARNING,),
                "created_at": self._now,
            },
            ["enrolment_id", "seq", "encounter_id", "samples"],
            (
                # an id in step with the rows: random ones would be written all over the index of a table of millions
                (f"import-{reference_id:012}", seq, name.encounter_id, [_finding(reference_id)])
                for reference_id, seq, name in zip(reference_ids, self._numbers, self._names, strict=True)
            ),
        )

    def _insert_changes(self, reference_ids: Sequence[int]) -> None:
        insert_rows(
            self._connection,
            changes,
            {**self._in_gallery, "kind": "import", "removed_ids": (), "created_at": self._now},
            ["seq", "added_ids"],
            ((seq, (reference_id,)) for seq, reference_id in zip(self._numbers, reference_ids, strict=True)),
        )


def _finding(reference_id: int) -> dict[str, Any]:
    return finding_json(SampleFinding(0, reference_id, None, None, None))


def _new_reference_ids(connection: Connection, count: int) -> list[int]:
    """Return numbers that no template had before: asked for beforehand, so that the rows need not be read again."""
    if connection.dialect.name == "sqlite":
        # the transaction is alone, and SQLite moves its own count on when the rows are inserted
        last = connection.execute(_LAST_ID_OF_SQLITE).scalar() or 0
        return list(range(last + 1, last + 1 + count))
    return sorted(connection.execute(_IDS_OF_POSTGRESQL, {"count": count}).scalars())
