"""All that the record holds of one subject, and the kept samples one by one."""

from typing import Any

from sqlalchemy import Connection, Select, and_, exists, or_, select

from service.domain import CaseKind, Held, KeptSample
from service.errors import EncounterNotFound, SampleNotFound, SubjectNotFound
from service.ports import SubjectCipher
from service.store.reading import CASE_ROWS, ENROLMENT_ROWS, build_enrolments, read_gallery
from service.store.records import build_encounters, build_subjects
from service.store.rows import to_case
from service.store.sealing import Sealing
from service.store.tables import (
    candidates,
    candidates_elsewhere,
    case_pairs,
    cases,
    encounters,
    enrolments,
    samples,
    subjects,
)


def held_about(connection: Connection, gallery_id: str, subject_id: str, cipher: SubjectCipher) -> Held:
    """Return all that is held of a subject. Raises GalleryNotFound, SubjectNotFound."""
    row = connection.execute(
        select(subjects).where(subjects.c.gallery_id == gallery_id, subjects.c.subject_id == subject_id)
    ).one_or_none()
    if row is None:
        read_gallery(connection, gallery_id)
        raise SubjectNotFound("there is no such subject in this gallery")
    is_its = and_(encounters.c.gallery_id == gallery_id, encounters.c.subject_id == subject_id)
    seen = connection.execute(select(encounters).where(is_its).order_by(encounters.c.seq)).all()
    made = connection.execute(ENROLMENT_ROWS.where(is_its).order_by(enrolments.c.seq)).all()
    kept = connection.execute(
        select(samples.c.encounter_id, samples.c.position)
        .join_from(samples, encounters)
        .where(is_its)
        .order_by(encounters.c.seq, samples.c.position)
    )
    own = connection.execute(CASE_ROWS.where(is_its).order_by(cases.c.case_id)).all()
    return Held(
        subject=build_subjects(connection, gallery_id, [row])[0],
        encounters=tuple(build_encounters(connection, gallery_id, seen, cipher)),
        enrolments=tuple(build_enrolments(connection, gallery_id, made)),
        samples=tuple((each.encounter_id, each.position) for each in kept),
        own_cases=tuple(to_case(each) for each in own),
        other_cases=tuple(to_case(each) for each in connection.execute(_cases_of_others(gallery_id, subject_id)).all()),
    )


def _cases_of_others(gallery_id: str, subject_id: str) -> Select[*tuple[Any, ...]]:
    """Return the cases of other people's encounters in which this subject is the candidate, in any gallery."""
    is_pair = and_(case_pairs.c.gallery_id == gallery_id, case_pairs.c.subject_id == subject_id)
    is_candidate = exists().where(
        candidates.c.gallery_id == cases.c.gallery_id,
        candidates.c.enrolment_id == cases.c.enrolment_id,
        candidates.c.gallery_id == gallery_id,
        candidates.c.subject_id == subject_id,
    )
    is_elsewhere = exists().where(
        candidates_elsewhere.c.gallery_id == cases.c.gallery_id,
        candidates_elsewhere.c.enrolment_id == cases.c.enrolment_id,
        candidates_elsewhere.c.other_gallery_id == gallery_id,
        candidates_elsewhere.c.subject_id == subject_id,
    )
    is_duplicate = and_(cases.c.kind == CaseKind.DUPLICATE.value, or_(is_candidate, is_elsewhere))
    return CASE_ROWS.where(or_(is_pair, is_duplicate)).order_by(cases.c.case_id)


def kept_sample(
    connection: Connection, gallery_id: str, encounter_id: str, position: int, cipher: SubjectCipher
) -> KeptSample:
    """Return a kept sample, as it was sent. Raises GalleryNotFound, EncounterNotFound, SampleNotFound."""
    is_encounter = encounters.c.gallery_id == gallery_id, encounters.c.encounter_id == encounter_id
    subject_id = connection.execute(select(encounters.c.subject_id).where(*is_encounter)).scalar_one_or_none()
    if subject_id is None:
        read_gallery(connection, gallery_id)
        raise EncounterNotFound("there is no such encounter in this gallery")
    image = connection.execute(
        select(samples.c.image).where(
            samples.c.gallery_id == gallery_id,
            samples.c.encounter_id == encounter_id,
            samples.c.position == position,
        )
    ).scalar_one_or_none()
    (opened,) = Sealing(cipher, gallery_id).open_samples([(encounter_id, position, image)])
    if opened is None:
        raise SampleNotFound("this encounter keeps no sample at this position")
    return KeptSample(subject_id, opened)
