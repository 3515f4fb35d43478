"""The calibrations of galleries, and the audit trail of their thresholds."""

from datetime import datetime

from sqlalchemy import Connection, select, update

from service.audit_chain import AuditEvent, Detail, NewEntry
from service.calibration import Calibration
from service.domain import ThresholdChange
from service.errors import CalibrationNotFound
from service.ports import KeptCalibration
from service.store.auditing import Recorder
from service.store.keys import insert_or_ignore
from service.store.reading import read_gallery
from service.store.rows import flat
from service.store.tables import calibrations, galleries

_OF_GALLERY = select(calibrations.c.content, calibrations.c.created_at).order_by(
    calibrations.c.created_at, calibrations.c.calibration_id
)


def add_calibration(
    connection: Connection, gallery_id: str, calibration: Calibration, now: datetime, recorder: Recorder
) -> None:
    """Keep a calibration for a gallery; one that is there already stays as it is. Raises GalleryNotFound."""
    read_gallery(connection, gallery_id)
    row = {
        "gallery_id": gallery_id,
        "calibration_id": calibration.calibration_id,
        "content": calibration.to_json(),
        "created_at": now,
    }
    if connection.execute(insert_or_ignore(connection.dialect.name, calibrations), row).rowcount:
        details: dict[str, Detail] = {
            "calibration_id": calibration.calibration_id,
            "method": calibration.method,
            "people": calibration.people,
            "comparisons": calibration.comparisons,
        }
        recorder.write(connection, gallery_id, NewEntry(AuditEvent.CALIBRATION_ADDED, details=details), now)


def calibration_of(connection: Connection, gallery_id: str, calibration_id: str) -> Calibration:
    """Raises GalleryNotFound, CalibrationNotFound."""
    wanted = _OF_GALLERY.where(calibrations.c.gallery_id == gallery_id, calibrations.c.calibration_id == calibration_id)
    row = connection.execute(wanted).one_or_none()
    if row is None:
        read_gallery(connection, gallery_id)
        raise CalibrationNotFound("the gallery has no calibration of this id")
    return Calibration.from_json(row.content)


def calibrations_of(connection: Connection, gallery_id: str) -> list[KeptCalibration]:
    """Return the calibrations that were kept for a gallery, oldest first. Raises GalleryNotFound."""
    read_gallery(connection, gallery_id)
    rows = connection.execute(_OF_GALLERY.where(calibrations.c.gallery_id == gallery_id))
    return [KeptCalibration(Calibration.from_json(row.content), row.created_at) for row in rows]


def record_thresholds(
    connection: Connection, gallery_id: str, change: ThresholdChange | None, now: datetime, recorder: Recorder
) -> None:
    """Write into the audit trail that a gallery has other thresholds now, where that is so."""
    if change is None:
        return
    details = {"reason": change.reason, **flat(change.thresholds)}
    written = update(galleries).where(galleries.c.gallery_id == gallery_id).values(thresholds_key=change.key)
    connection.execute(written)
    recorder.write(connection, gallery_id, NewEntry(AuditEvent.THRESHOLDS_CHANGED, details=details), now)
