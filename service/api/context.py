"""What the routes work with: the parts of a running service, and whether they are there yet."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from service.ages import RecaptureAdvice
from service.agreements import AgreementService
from service.auditing import AuditService
from service.calibrations import CalibrationService
from service.clients import ClientService
from service.enrolment import EnrolmentService
from service.erasure import ErasureService
from service.errors import NotReady
from service.galleries import GalleryService
from service.identification import IdentificationService
from service.index_care import IndexCare
from service.key_ring import KeyRing
from service.live_accuracy import LiveAccuracy
from service.matching import Matcher
from service.metrics import Metrics
from service.migration import MigrationService
from service.packs import Packs
from service.plans import PlanService
from service.ports import Agreements, LegalHolds, Store
from service.receipts import ReceiptIssuer
from service.retention import RetentionService
from service.sweep import SweepService
from service.template_making import TemplateMaking
from service.verification import VerificationService

RETRY_WHILE_STARTING_S = 2


class CheckedStore(Store, Protocol):
    """A record that can say how it is, with that of the sharing agreements."""

    @property
    def agreements(self) -> Agreements: ...

    def ping(self) -> None:
        """Raises StoreUnavailable."""
        ...

    def is_migrated(self) -> bool:
        """Raises StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """The use cases of one process and what stands behind them."""

    enrolment: EnrolmentService
    identification: IdentificationService
    verification: VerificationService
    erasure: ErasureService
    receipts: ReceiptIssuer
    galleries: GalleryService
    calibrations: CalibrationService
    audit: AuditService
    accuracy: LiveAccuracy
    index_care: IndexCare
    sweeps: SweepService
    plans: PlanService
    migrations: MigrationService
    template_making: TemplateMaking
    retention: RetentionService
    holds: LegalHolds
    clients: ClientService
    agreements: AgreementService
    store: CheckedStore
    matcher: Matcher
    packs: Packs
    metrics: Metrics
    keys: KeyRing
    fnir_warning: float
    recapture: RecaptureAdvice
    max_samples: int
    close: Callable[[], None]


class Startup:
    """The service while it starts: nothing yet, then the service, or why there will be none."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "startup")
        self._building: Future[Service] | None = None

    def begin(self, build: Callable[[], Service], on_failure: Callable[[], None]) -> None:
        """Build the service on a thread of its own; `on_failure` is called there if it cannot be built."""

        def ended(building: Future[Service]) -> None:
            if building.exception() is not None:
                on_failure()

        self._building = self._threads.submit(build)
        self._building.add_done_callback(ended)

    @property
    def failure(self) -> BaseException | None:
        """Why there will be no service; None while it is being built, and when it is there."""
        building = self._building
        return building.exception() if building is not None and building.done() else None

    def service(self) -> Service:
        """Raises NotReady."""
        building = self._building
        if building is None or not building.done() or building.exception() is not None:
            raise NotReady("the service is starting; try again", retry_after_s=RETRY_WHILE_STARTING_S)
        return building.result()

    def end(self) -> None:
        """Wait for the building to end, then close what was built."""
        self._threads.shutdown()
        if self._building is not None and self._building.exception() is None:
            self._building.result().close()


def startup_of(request: Request) -> Startup:
    return cast(Startup, request.app.state.startup)


async def current_service(request: Request) -> Service:  # async: FastAPI would give a plain function a thread
    """Raises NotReady."""
    return startup_of(request).service()


ServiceDep = Annotated[Service, Depends(current_service)]
