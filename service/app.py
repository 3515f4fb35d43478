"""The map of the system: what is built from the settings, in which order, and how it is served.

A little over 300 lines: all wiring in one place.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import anyio.to_thread
import threadpoolctl
from fastapi import FastAPI

from service.ages import RecaptureAdvice
from service.agreements import AgreementService
from service.api.context import CheckedStore, Service, Startup
from service.api.document import create_api, to_yaml
from service.api.middleware import RequestMiddleware
from service.calibration import Calibration
from service.calibrations import CalibrationService
from service.decision import DecisionRule
from service.enrolment import EnrolmentService
from service.erasure import ErasureService
from service.errors import GalleryExists, PackManifestInvalid, PackNotInstalled
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack, installed_pack
from service.face.unified import scale_of
from service.face.worker import Setup
from service.face.worker_pool import WorkerPool, embedders
from service.galleries import GalleryChange, GalleryDefaults, GalleryService
from service.identification import IdentificationService
from service.index_care import IndexCare
from service.indexes import files_forgetter, index_maker, spare_folder
from service.job_runner import JobRunner
from service.live_accuracy import LiveAccuracy
from service.logs import log_event
from service.matching import Matcher
from service.metrics import Metrics
from service.migration import MigrationService
from service.packs import Pack, Packs
from service.plans import PlanService
from service.ports import Embedder
from service.settings import Settings
from service.store.sql_store import SqlStore
from service.sweep import SweepService
from service.template_making import TemplateMaking
from service.var_lock import VarLock
from service.verification import VerificationService

_log = logging.getLogger(__name__)

VERSION = version("biodedup")
IDEMPOTENCY_PERIOD = timedelta(hours=24)
_SQLITE_FILE = "biodedup.sqlite"
_THREADS_BESIDE_SAMPLES = 16  # for requests that read the record while every sample's thread waits
_MAX_THREADS = 256


def build(
    settings: Settings, metrics: Metrics | None = None, *, url: str | None = None, packs: Packs | None = None
) -> Service:
    """Open, check and load everything; `close` of the result gives it all back.

    Args:
        settings: as loaded.
        metrics: to record into; new ones if not given.
        url: where this process serves, told to others who want the same folder.
        packs: to use instead of loading those of the settings, for tests.

    Raises:
        VarInUse: another process owns the folder.
        StoreUnavailable, SettingsInvalid
        ModelPackError: a pack that is configured, or that a gallery uses, is not there or may not be used.
    """
    # BLAS threads would fight with the threads that embed: 46 against 69 enrolments a second on two cores
    threadpoolctl.threadpool_limits(limits=1)
    metrics = metrics or Metrics(version=VERSION)
    held = ExitStack()
    with ExitStack() as on_failure:
        on_failure.callback(held.close)
        folder = local_folder(settings)
        if folder is not None:
            held.callback(VarLock(folder, url).release)
        index_folder = folder or spare_folder(settings.var_dir, url, held)
        store = SqlStore(database_url(settings))
        held.callback(store.close)
        store.migrate()
        packs = (packs or _load_packs(settings, store, metrics, held)).beside(store)
        new_index = index_maker(settings.index, index_folder, metrics)
        matcher = Matcher(store, new_index, packs, metrics, files_forgetter(index_folder))
        held.callback(matcher.close)
        service = _wire(settings, store, matcher, packs, metrics, close=held.close)
        _prepare(service, settings)
        _start_jobs(service, held, is_alone=folder is not None)
        on_failure.pop_all()
        return service


def _start_jobs(service: Service, held: ExitStack, *, is_alone: bool) -> None:
    """Work on sweeps and migrations, each on a thread of its own, until `held` is closed."""
    is_busy, look = service.metrics.is_anyone_waiting, service.matcher.forget_other_packs
    held.callback(service.template_making.close)
    for runner in (
        JobRunner(service.sweeps, is_alone=is_alone, clock=_now, is_busy=is_busy),
        JobRunner(
            service.template_making, name="migration", is_alone=is_alone, clock=_now, is_busy=is_busy, on_look=look
        ),
    ):
        runner.start()
        held.callback(runner.close)


def local_folder(settings: Settings) -> Path | None:
    """Return the folder that one process must own, None where the record is a database server."""
    if settings.database_url is None:
        return settings.var_dir
    address = settings.database_url.get_secret_value()
    if not address.startswith("sqlite"):
        return None
    return Path(address.partition(":///")[2]).parent


def database_url(settings: Settings) -> str:
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return f"sqlite:///{settings.var_dir / _SQLITE_FILE}"


def _load_packs(settings: Settings, store: CheckedStore, metrics: Metrics, held: ExitStack) -> Packs:
    """Load the configured packs, and every pack whose templates the record holds."""
    wanted = dict.fromkeys(
        (*settings.packs, *(pack_id for gallery in store.galleries() for pack_id in gallery.pack_ids))
    )
    installed = [_installed(settings, pack_id) for pack_id in wanted]
    # one pool for all packs: they share the cores
    pool = WorkerPool(
        Setup(tuple(installed), _limits(settings), settings.min_face_width_px, settings.log_level),
        workers=_workers(settings),
        queue_limit=settings.queue_limit,
        max_wait_s=settings.queue_timeout_s,
        max_sample_s=settings.sample_timeout_s,
        observe=metrics.observe_phase,
        on_loss=metrics.worker_losses.inc,
    )
    held.callback(pool.close)
    metrics.queue_limit.set(settings.queue_limit)
    metrics.queue_waiting.set_function(lambda: pool.waiting)
    return Packs(
        {
            pack_id: Pack(
                embedder,
                DecisionRule(_calibration(settings, embedder), settings.fnir_warning),
                judges_quality=scale_of(pack) is not None,
            )
            for pack, (pack_id, embedder) in zip(installed, embedders(pool, installed).items(), strict=True)
        }
    )


def _installed(settings: Settings, pack_id: str) -> InstalledPack:
    pack = installed_pack(settings.models_dir, pack_id, accepted_licences=frozenset(settings.accepted_licences))
    log_event(_log, "pack.loaded", pack_id=pack_id, model_id=pack.model_id)
    return pack


def _limits(settings: Settings) -> ImageLimits:
    return ImageLimits(
        max_bytes=settings.max_sample_bytes,
        max_pixels=settings.max_pixels,
        max_decode_s=settings.decode_timeout_s,
    )


def _workers(settings: Settings) -> int:
    return settings.workers or len(os.sched_getaffinity(0))


def _calibration(settings: Settings, embedder: Embedder) -> Calibration:
    """Raises PackNotInstalled, PackManifestInvalid."""
    pack_id = embedder.pack_id
    path = settings.models_dir / pack_id / "calibration.json"
    advice = f"make one with `biodedup calibrate DIR --pack {pack_id} --out {path}`"
    try:
        calibration = Calibration.from_json(path.read_text())
    except FileNotFoundError:
        raise PackNotInstalled(
            f"the model pack {pack_id} has no calibration.json, so its scores mean nothing yet: {advice}"
        ) from None
    except ValueError as error:
        raise PackManifestInvalid(
            f"the calibration.json of the model pack {pack_id} cannot be read, or was changed: restore it, or {advice}"
        ) from error
    if (calibration.pack_id, calibration.model_id) != (pack_id, embedder.model_id):
        raise PackManifestInvalid(
            f"the calibration.json of {pack_id} was made for {calibration.model_id}, not for {embedder.model_id}: "
            f"{advice}"
        )
    return calibration


def _wire(
    settings: Settings,
    store: CheckedStore,
    matcher: Matcher,
    packs: Packs,
    metrics: Metrics,
    *,
    close: Callable[[], None],
) -> Service:
    defaults = GalleryDefaults(
        pack_id=settings.pack,
        review_fpir=settings.review_fpir,
        duplicate_fpir=settings.duplicate_fpir,
        verification_fmr=settings.verification_fmr,
        keep_samples=settings.keep_samples,
        quality_gate=settings.quality_gate,
    )
    policy, threads = settings.face_policy, max(_workers(settings) // 2, 1)
    making = TemplateMaking(store, matcher, packs, metrics, face_policy=policy, threads=threads)
    accuracy = LiveAccuracy(matcher, packs, metrics, sites=settings.metric_sites)
    recapture = RecaptureAdvice(
        settings.recapture_years_young_child, settings.recapture_years_child, settings.recapture_years_adult
    )
    identification = IdentificationService(store, matcher, packs, metrics, face_policy=policy)
    return Service(
        enrolment=EnrolmentService(
            store,
            matcher,
            packs,
            metrics,
            accuracy=accuracy,
            face_policy=policy,
            idempotency_period=IDEMPOTENCY_PERIOD,
            clock=_now,
            recapture=recapture,
        ),
        identification=identification,
        verification=VerificationService(store, packs, metrics, accuracy=accuracy, face_policy=policy),
        erasure=ErasureService(store, matcher),
        galleries=GalleryService(store, packs, defaults, _now),
        calibrations=CalibrationService(store, packs, _now),
        accuracy=accuracy,
        index_care=IndexCare(matcher, metrics),
        sweeps=SweepService(store, matcher, packs, metrics),
        plans=PlanService(store, packs, defaults),
        migrations=MigrationService(store, matcher, packs, metrics, making.news.set),
        template_making=making,
        agreements=AgreementService(store.agreements, identification, _now),
        store=store,
        matcher=matcher,
        packs=packs,
        metrics=metrics,
        fnir_warning=settings.fnir_warning,
        recapture=recapture,
        max_samples=settings.max_samples,
        close=close,
    )


def _prepare(service: Service, settings: Settings) -> None:
    """Make the default gallery at the first start, and fill every index."""
    known = {gallery.gallery_id for gallery in service.store.galleries()}
    if settings.default_gallery not in known:
        _make_gallery(service, settings.default_gallery)
    for gallery in service.store.galleries():
        service.matcher.catch_up(gallery.gallery_id)


def _make_gallery(service: Service, gallery_id: str) -> None:
    with suppress(GalleryExists):  # another process on the same database was a moment earlier
        service.galleries.create(gallery_id, GalleryChange())


def _now() -> datetime:
    return datetime.now(UTC)


def create_app(
    settings: Settings,
    *,
    url: str | None = None,
    packs: Packs | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Return the HTTP application. Nothing is opened before it starts; it answers /healthz while it opens the rest.

    Args:
        settings: as loaded.
        url: where it will serve.
        packs: to use instead of loading those of the settings, for tests.
        on_failure: called when the service could not be built; `app.state.startup.failure` says why.
    """
    metrics = Metrics(version=VERSION)
    startup = Startup()

    def make() -> Service:
        return build(settings, metrics, url=url, packs=packs)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        threads = min(settings.queue_limit + _workers(settings) + _THREADS_BESIDE_SAMPLES, _MAX_THREADS)
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        startup.begin(make, on_failure)
        yield
        await asyncio.to_thread(startup.end)

    app = create_api(VERSION, lifespan=lifespan)
    app.state.metrics = metrics
    app.state.startup = startup
    app.add_middleware(RequestMiddleware, metrics=metrics, max_request_bytes=settings.max_request_bytes)
    return app


def export_openapi() -> str:
    """Return the OpenAPI document as `openapi.yaml` holds it; needs no model, no database and no setting."""
    return to_yaml(create_app(Settings()))
