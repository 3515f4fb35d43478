"""A small whole system without HTTP: any store, real index, synthetic people."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry

from service.calibrations import CalibrationService
from service.domain import Enrolment, FacePolicy, Gallery, ThresholdChange
from service.enrolment import EnrolmentAnswer, EnrolmentService
from service.enrolment_request import EnrolmentRequest
from service.erasure import ErasureService
from service.galleries import GalleryDefaults, GalleryService
from service.gallery.faiss_index import FaissIndex
from service.identification import Identification, IdentificationService
from service.live_accuracy import LiveAccuracy
from service.matching import Matcher
from service.metrics import Metrics
from service.packs import Packs
from service.ports import Embedder, GalleryIndex, Store
from service.receipts import COMPACT_WITHIN, KEY_BACKUPS_KEPT, ReceiptIssuer
from service.verification import VerificationService
from tests import synthetic
from tests.fake_transactions import FakeWriting
from tests.fakes import FakeStore
from tests.synthetic import PACK_ID, sample_of

GALLERY = "camp"
START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


@dataclass
class Clock:
    """Time that moves only when told to."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()


class InterruptedStore(FakeStore):
    """A store in which something else happens just before the next enrolment or change of settings is written, once."""

    def __init__(self, clock: Callable[[], datetime] = lambda: START) -> None:
        super().__init__(clock)
        self.before_writing: Callable[[], object] | None = None

    @contextmanager
    def writing(self, gallery_id: str, also: Sequence[str] = ()) -> Iterator[FakeWriting]:
        self._interrupt()
        with super().writing(gallery_id, also) as writing:
            yield writing

    def update_gallery(
        self,
        gallery_id: str,
        revise: Callable[[Gallery], Gallery],
        threshold_change: Callable[[Gallery], ThresholdChange | None] = lambda _: None,
    ) -> Gallery:
        self._interrupt()
        return super().update_gallery(gallery_id, revise, threshold_change)

    def _interrupt(self) -> None:
        happens, self.before_writing = self.before_writing, None
        if happens is not None:
            happens()


class DeafMatcher(Matcher):
    """A matcher whose index hears of no change after it was filled, unless it is made to catch up."""

    def applied(self, *_: object) -> None:
        """The change is lost."""

    def follow(self, gallery_id: str) -> None:
        """The change is lost."""


def new_issuer() -> ReceiptIssuer:
    """Return what signs receipts, always with the same key."""
    return ReceiptIssuer(lambda: bytes(range(32)), COMPACT_WITHIN, KEY_BACKUPS_KEPT)


class World:
    """The use cases over one store, with one gallery."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        keep_samples: bool = False,
        matcher: type[Matcher] = Matcher,
        index: Callable[[int], GalleryIndex] = FaissIndex,
        has_gallery: bool = False,
        embedder: Embedder | None = None,
        sites: tuple[str, ...] = (),
        packs: Packs | None = None,
    ) -> None:
        self.clock = Clock()
        self.store: Store = FakeStore(clock=self.clock) if store is None else store
        self.metrics = Metrics(CollectorRegistry())
        self.new_index = index
        self.indexes: list[GalleryIndex] = []
        self.packs = (packs or synthetic.packs(embedder=embedder)).beside(self.store)
        self.matcher = matcher(self.store, self._new_index, self.packs, self.metrics)
        self.accuracy = LiveAccuracy(self.matcher, self.packs, self.metrics, sites=sites, clock=self.clock.seconds)
        policy = FacePolicy.REFUSE
        self.enrolment = EnrolmentService(
            self.store,
            self.matcher,
            self.packs,
            self.metrics,
            accuracy=self.accuracy,
            face_policy=policy,
            idempotency_period=timedelta(hours=24),
            clock=self.clock,
        )
        self.identification = IdentificationService(
            self.store, self.matcher, self.packs, self.metrics, face_policy=policy
        )
        self.verification = VerificationService(
            self.store, self.packs, self.metrics, accuracy=self.accuracy, face_policy=policy
        )
        self.erasure = ErasureService(self.store, self.matcher, new_issuer())
        defaults = GalleryDefaults(PACK_ID, 0.01, 0.001, 0.001, keep_samples=keep_samples)
        self.galleries = GalleryService(self.store, self.packs, defaults, self.clock)
        self.calibrations = CalibrationService(self.store, self.packs, self.clock)
        if has_gallery:
            return
        self.store.create_gallery(
            Gallery(GALLERY, PACK_ID, 0.01, 0.001, 0.001, keep_samples=keep_samples, created_at=START)
        )

    @classmethod
    def beside(cls, store: Store, packs: Packs | None = None) -> "World":
        """Another process on the same record, with an index of its own."""
        return cls(store, has_gallery=True, packs=packs)

    def _new_index(self, gallery: Gallery, embedder: Embedder) -> GalleryIndex:
        self.indexes.append(self.new_index(embedder.dimension))
        return self.indexes[-1]

    def answer(self, *samples: bytes, **fields: object) -> EnrolmentAnswer:
        return self.enrolment.enrol(EnrolmentRequest(GALLERY, samples, **fields))  # type: ignore[arg-type]  # by name

    def enrol(self, person: int, capture: int = 0, **fields: object) -> Enrolment:
        return self.answer(sample_of(person, capture), **fields).enrolment

    def identify(self, person: int, capture: int = 9) -> Identification:
        return self.identification.identify(GALLERY, sample_of(person, capture))

    def gallery(self) -> Gallery:
        with self.store.reading() as reading:
            return reading.gallery(GALLERY)
