"""The map of the system: what is built from the settings, in which order, and how it is served.

Over 300 lines on purpose: all wiring in one place.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import anyio.to_thread
import threadpoolctl
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.ages import RecaptureAdvice
from service.agreements import AgreementService
from service.api.auth import Authentication
from service.api.context import CheckedStore, Service, Startup
from service.api.document import create_api, to_yaml
from service.api.middleware import RequestMiddleware
from service.api.oidc import OidcProvider, OidcSettings
from service.api.request_limits import RequestLimits
from service.api_keys import ApiKeys
from service.audit_anchors import Anchors
from service.auditing import AuditService
from service.calibration import Calibration
from service.calibrations import CalibrationService
from service.clients import ClientService, NewKey
from service.decision import DecisionRule
from service.encrypted_store import Progress, key_store_url, open_encrypted
from service.enrolment import EnrolmentService
from service.erasure import ErasureService
from service.erasure_ledger import ErasureLedger
from service.erasure_upkeep import ErasureUpkeep
from service.errors import GalleryExists, PackManifestInvalid, PackNotInstalled
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack, installed_pack
from service.face.unified import scale_of
from service.face.worker import Setup
from service.face.worker_pool import WorkerPool, embedders
from service.galleries import GalleryChange, GalleryDefaults, GalleryService
from service.identification import IdentificationService
from service.index_care import IndexCare
from service.indexes import delete_index_files, files_forgetter, index_maker, spare_folder
from service.job_runner import JobRunner
from service.key_ring import KeyRing
from service.keys.sources import MasterKeySource
from service.live_accuracy import LiveAccuracy
from service.logs import log_event
from service.matching import Matcher
from service.metrics import Metrics
from service.migration import MigrationService
from service.packs import Pack, Packs
from service.plans import PlanService
from service.ports import Embedder
from service.rate_limits import Allowance, Exchange, RateLimits
from service.receipts import RECEIPTS_KEY, ReceiptIssuer
from service.retention import RetentionService
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
_LEDGER_FOLDER = "ledger"
_THREADS_BESIDE_SAMPLES = 16  # for requests that read the record while every sample's thread waits
_MAX_THREADS = 256
PROGRESS_S = 5.0


def build(
    settings: Settings,
    metrics: Metrics | None = None,
    *,
    url: str | None = None,
    packs: Packs | None = None,
    on_encryption: Progress = lambda _done, _total: None,
    on_first_key: Callable[[str], None] | None = None,
    rates: RateLimits | None = None,
) -> Service:
    """Open, check and load everything; `close` of the result gives it all back.

    Args:
        settings: as loaded.
        metrics: to record into; new ones if not given.
        url: where this process serves, told to others who want the same folder.
        packs: to use instead of loading those of the settings, for tests.
        on_encryption: told how many subjects of an earlier version's record are encrypted, of how many.
        on_first_key: given the key of the first client, which is made where there is none; None: none is made.
        rates: of the clients; shared with the other processes where the record is a database server.

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
        store, ring = _open_record(settings, index_folder, metrics, held, on_encryption)
        anchors = _anchors(settings, store, metrics)
        held.callback(anchors.close)
        packs = (packs or _load_packs(settings, store, metrics, held)).beside(store)
        new_index = index_maker(settings.index, index_folder, metrics, ring.gallery_key)
        matcher = Matcher(store, new_index, packs, metrics, files_forgetter(index_folder))
        held.callback(matcher.close)
        clients = _client_service(settings, store)
        held.callback(clients.keys.close)
        service = _wire(settings, store, matcher, packs, metrics, keys=ring, clients=clients, close=held.close)
        _prepare(service, settings)
        if on_first_key is not None and settings.auth == "on":
            _begin_clients(clients, on_first_key)
        anchors.start()
        _start_jobs(service, held, is_alone=folder is not None)
        upkeep = _erasure_upkeep(settings, store, ring, service)
        upkeep.start()
        held.callback(upkeep.close)
        if rates is not None and folder is None:
            held.callback(Exchange(rates.counters, store).close)
        on_failure.pop_all()
        return service


def _start_jobs(service: Service, held: ExitStack, *, is_alone: bool) -> None:
    """Work on sweeps, migrations and retention, each on a thread of its own, until `held` is closed."""
    is_busy, look = service.metrics.is_anyone_waiting, service.matcher.forget_other_packs
    held.callback(service.template_making.close)
    for runner in (
        JobRunner(service.sweeps, is_alone=is_alone, clock=_now, is_busy=is_busy),
        JobRunner(
            service.template_making, name="migration", is_alone=is_alone, clock=_now, is_busy=is_busy, on_look=look
        ),
        JobRunner(
            service.retention,
            name="retention",
            is_alone=is_alone,
            clock=_now,
            is_busy=is_busy,
            on_look=service.retention.look,
        ),
    ):
        runner.start()
        held.callback(runner.close)


def _erasure_upkeep(settings: Settings, store: SqlStore, ring: KeyRing, service: Service) -> ErasureUpkeep:
    within = timedelta(hours=settings.compact_within_hours)
    # SQLite's log is emptied in a moment; PostgreSQL's table is written anew
    is_quick = keys_url(settings).startswith("sqlite")
    return ErasureUpkeep(
        store,
        ring,
        service.index_care,
        service.metrics,
        compact_within=within,
        purge_within=timedelta(0) if is_quick else within,
        clock=_now,
    )


def _anchors(settings: Settings, store: SqlStore, metrics: Metrics) -> Anchors:
    return Anchors(
        store,
        metrics,
        file=settings.audit_anchor_file,
        entries=settings.audit_anchor_entries,
        period_s=settings.audit_anchor_period_s,
        clock=_now,
    )


def _open_record(
    settings: Settings, index_folder: Path | None, metrics: Metrics, held: ExitStack, on_encryption: Progress
) -> tuple[SqlStore, KeyRing]:
    return open_encrypted(
        database_url(settings),
        keys_url(settings),
        master_key_source(settings).opener(keys_folder(settings)),
        held,
        ledger=ErasureLedger(ledger_folder(settings)),
        on_adopted=lambda: delete_index_files(index_folder),
        on_progress=_told_now_and_then(on_encryption),
        on_entry=metrics.count_audit_entry,
        on_replayed=metrics.erasures_replayed.inc,
    )


def _told_now_and_then(tell: Progress) -> Progress:
    """Log how far the encryption of an earlier record is, and `tell` it: at the start, each few seconds, at the end."""
    told_at = -PROGRESS_S

    def progress(done: int, total: int) -> None:
        nonlocal told_at
        if done == total or time.monotonic() - told_at >= PROGRESS_S:
            told_at = time.monotonic()
            log_event(_log, "record.encrypting", done=done, total=total)
            tell(done, total)

    return progress


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


def keys_folder(settings: Settings) -> Path:
    """Return the folder of the master key's file and of a key store in SQLite."""
    return local_folder(settings) or settings.var_dir


def ledger_folder(settings: Settings) -> Path:
    return settings.ledger_dir or keys_folder(settings) / _LEDGER_FOLDER


def master_key_source(settings: Settings) -> MasterKeySource:
    secrets = (settings.master_key, settings.next_master_key, settings.token_pin, settings.transit_token)
    return MasterKeySource(
        settings.master_key_source, *(None if each is None else each.get_secret_value() for each in secrets)
    )


def keys_url(settings: Settings) -> str:
    address = settings.key_database_url
    return key_store_url(None if address is None else address.get_secret_value(), keys_folder(settings))


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
    store: SqlStore,
    matcher: Matcher,
    packs: Packs,
    metrics: Metrics,
    *,
    keys: KeyRing,
    clients: ClientService,
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
    issuer = ReceiptIssuer(
        lambda: keys.gallery_key(RECEIPTS_KEY),
        timedelta(hours=settings.compact_within_hours),
        timedelta(days=settings.key_backup_days),
    )
    policy, threads = settings.face_policy, max(_workers(settings) // 2, 1)
    making = TemplateMaking(store, matcher, packs, metrics, face_policy=policy, threads=threads)
    accuracy = LiveAccuracy(matcher, packs, metrics, sites=settings.metric_sites)
    recapture = RecaptureAdvice(
        settings.recapture_years_young_child, settings.recapture_years_child, settings.recapture_years_adult
    )
    identification = IdentificationService(store, matcher, packs, metrics, face_policy=policy)
    erasure = ErasureService(store, matcher, issuer)
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
        erasure=erasure,
        receipts=issuer,
        galleries=GalleryService(store, packs, defaults, _now),
        calibrations=CalibrationService(store, packs, _now),
        audit=AuditService(store),
        accuracy=accuracy,
        index_care=IndexCare(matcher, metrics),
        sweeps=SweepService(store, matcher, packs, metrics),
        plans=PlanService(store, packs, defaults),
        migrations=MigrationService(store, matcher, packs, metrics, making.news.set),
        template_making=making,
        retention=RetentionService(store.retention, store.retention_runs, erasure, metrics, _now),
        holds=store.holds,
        clients=clients,
        agreements=AgreementService(store.agreements, identification, _now),
        store=store,
        matcher=matcher,
        packs=packs,
        metrics=metrics,
        keys=keys,
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


def _begin_clients(clients: ClientService, on_first_key: Callable[[str], None]) -> None:
    """Make the first client last: a start that fails has shown nobody a key."""
    first = clients.begin()
    if first is not None:
        on_first_key(first.key)


def recover_admin(store: SqlStore, settings: Settings) -> NewKey:
    """Make a further administrator in a record that no service uses now. Raises StoreUnavailable."""
    clients = _client_service(settings, store)
    with closing(clients.keys):
        return clients.recover()


def _client_service(settings: Settings, store: SqlStore) -> ClientService:
    """Return it with keys that are to be closed."""
    audit = AuditService(store)
    return ClientService(
        store.clients,
        ApiKeys(store.clients, _now),
        _now,
        timedelta(days=settings.key_days),
        on_change=lambda event, name: audit.record(event, None, details={"client": name}),
    )


def _authentication(settings: Settings) -> Authentication:
    provider = None
    if settings.oidc_issuer is not None and settings.oidc_audience is not None:
        asked = OidcSettings(settings.oidc_issuer, settings.oidc_audience, settings.oidc_roles_claim)
        provider = OidcProvider(asked)
    return Authentication(is_on=settings.auth == "on", provider=provider)


def _now() -> datetime:
    return datetime.now(UTC)


def create_app(
    settings: Settings,
    *,
    url: str | None = None,
    packs: Packs | None = None,
    on_failure: Callable[[], None] = lambda: None,
    on_encryption: Progress = lambda _done, _total: None,
    on_first_key: Callable[[str], None] | None = None,
) -> FastAPI:
    """Return the HTTP application. Nothing is opened before it starts; it answers /healthz while it opens the rest.

    Args:
        settings: as loaded.
        url: where it will serve.
        packs: to use instead of loading those of the settings, for tests.
        on_encryption: as for `build`.
        on_failure: called when the service could not be built; `app.state.startup.failure` says why.
        on_first_key: see `build`; called on the thread that builds.
    """
    metrics = Metrics(version=VERSION)
    startup = Startup()

    rates = RateLimits(_allowance(settings), on_limited=lambda what: metrics.rate_limited.labels(kind=what).inc())

    def make() -> Service:
        return build(
            settings,
            metrics,
            url=url,
            packs=packs,
            rates=rates,
            on_encryption=on_encryption,
            on_first_key=on_first_key,
        )

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
    app.state.authentication = _authentication(settings)
    app.state.limits = RequestLimits(rates)
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        limits=app.state.limits,
        max_request_bytes=settings.max_request_bytes,
        receive_timeout_s=settings.receive_timeout_s,
        is_local=settings.auth == "off",
    )
    if settings.trusted_proxies:
        # the address and the scheme that a proxy tells, from these alone; added last, so it comes first
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return app


def _allowance(settings: Settings) -> Allowance:
    return Allowance(
        requests=settings.limit_requests_per_minute,
        searches=settings.limit_searches_per_minute,
        mib=settings.limit_mib_per_minute,
        failed_sign_ins=settings.limit_failed_sign_ins_per_minute,
    )


def export_openapi() -> str:
    """Return the OpenAPI document as `openapi.yaml` holds it; needs no model, no database and no setting."""
    return to_yaml(create_app(Settings()))
