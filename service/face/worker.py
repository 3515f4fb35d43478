"""A process of its own that turns samples into templates, started by the pool.

It shares no interpreter lock with the requests, and a decoder that crashes or hangs on a file takes down only it.
"""

import logging
import os
import pickle
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any

import threadpoolctl

from service.core_dumps import forbid_core_dumps
from service.domain import NO_ATTACK_MODEL, Box, Embedding, FacePolicy, PresentationAttack, Quality, Template
from service.errors import BiodedupError
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack
from service.logs import configure_logs, log_event

_log = logging.getLogger(__name__)

_values_of_quality, _values_of_box = attrgetter(*Quality.__slots__), attrgetter(*Box.__slots__)


@dataclass(frozen=True)
class Setup:
    """The first message to a worker; it answers None when the packs are warm, or the error that keeps it from them."""

    packs: tuple[InstalledPack, ...]
    limits: ImageLimits
    min_face_width_px: float
    log_level: str


Request = tuple[str, bytes, FacePolicy]
"""A message to a worker: the pack's id, an image file, what to do with several faces."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker sends back for each request, in their order."""

    result: Template | BiodedupError | None  # None: an exception that nobody expected; the worker has logged it
    phases: tuple[tuple[str, float], ...]  # their names and seconds

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a template as its values: its nouns one by one take as long as aligning its face."""
        if not isinstance(self.result, Template):
            return Answer, (self.result, self.phases)
        found = self.result
        attack = None if found.presentation_attack == NO_ATTACK_MODEL else found.presentation_attack
        seen = _values_of_box(found.box), attack
        return _answer_of, (found.pack_id, found.embedding, _values_of_quality(found.quality), seen, self.phases)


def _answer_of(
    pack_id: str,
    embedding: Embedding,
    quality: tuple[Any, ...],
    seen: tuple[tuple[float, ...], PresentationAttack | None],
    phases: tuple[tuple[str, float], ...],
) -> Answer:
    box, attack = seen
    return Answer(Template(pack_id, embedding, Quality(*quality), Box(*box), attack or NO_ATTACK_MODEL), phases)


def work(connection: Connection) -> None:
    """Answer requests until the other end is closed."""
    setup: Setup = connection.recv()
    configure_logs(setup.log_level)
    threadpoolctl.threadpool_limits(limits=1)
    phases: list[tuple[str, float]] = []
    try:
        extractors = {
            pack.manifest.pack_id: Extractor(
                pack,
                limits=setup.limits,
                min_face_width_px=setup.min_face_width_px,
                observe=lambda phase, seconds: phases.append((phase, seconds)),
            )
            for pack in setup.packs
        }
    except BiodedupError as error:
        connection.send(error)
        return
    connection.send(None)
    while True:
        pack_id, data, policy = connection.recv()
        phases.clear()
        result = _extracted(extractors[pack_id], data, policy)
        connection.send_bytes(pickle.dumps(Answer(result, tuple(phases))))  # `send` builds a pickler of its own


def _extracted(extractor: Extractor, data: bytes, policy: FacePolicy) -> Template | BiodedupError | None:
    try:
        return extractor.extract(data, policy)
    except BiodedupError as error:
        return error
    except Exception as error:  # noqa: BLE001  (a defect: logged, answered 500, and the next sample is worked on)
        log_event(_log, "worker.failed", level=logging.ERROR, error=error)
        return None


def main() -> None:
    """Work on the connection whose descriptor is the first argument."""
    # a signal to the whole group is for the pool: it lets the accepted samples end and then closes the connection
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    forbid_core_dumps()
    try:
        work(Connection(int(sys.argv[1])))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # the pool is gone; its own end is nothing to report, and there is nothing to give back
        os._exit(0)
