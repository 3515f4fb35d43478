"""`biodedup check`: is everything in place? It changes nothing, also beside a running service."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import typer

from service.calibration import Calibration
from service.cli.client import DEFAULT_URL, Json, ServiceClient, UrlOption
from service.cli.failures import EXIT_FAILED, CommandFailed
from service.cli.show import console, plain
from service.domain import Gallery
from service.errors import BiodedupError, PackManifestInvalid, PackMismatch, PackNotInstalled, VarUnusable
from service.settings import Settings, load_settings
from service.var_lock import owner_of

SQLITE_FILE = "biodedup.sqlite"  # as app.py names it

OK, WARN, FAIL = "ok", "warn", "fail"
_STYLES = {OK: "green", WARN: "yellow", FAIL: "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check. `advice` says what to do about it."""

    level: str
    what: str
    says: str
    advice: str = ""


def check(url: UrlOption = DEFAULT_URL) -> None:
    """Check settings, the var folder, the database, model packs, calibrations, and whether a service runs.

    Looked at are the packs of the settings and those of the galleries in the database: `serve` needs all of them. It
    changes nothing, and beside a running service it asks that service instead of opening its database.

    Example: biodedup check

    Exit codes: 0 all in place (warnings allowed), 1 something must be done first, 2 wrong usage.
    """
    out = console()
    levels = []
    for finding in findings(url):
        levels.append(finding.level)
        style = _STYLES[finding.level]
        out.print(f"[{style}]{finding.level:4}[/{style}]  {finding.what:12}  {plain(finding.says)}")
        if finding.advice:
            out.print(f"                    {plain(finding.advice)}")
    if FAIL in levels:
        raise typer.Exit(EXIT_FAILED)


def findings(url: str) -> Iterator[Finding]:
    """Yield every finding, settings first: without them nothing else can be checked."""
    try:
        settings = load_settings(os.environ)
    except BiodedupError as error:
        for line in error.message.splitlines():
            yield Finding(FAIL, "settings", line)
        return
    yield Finding(OK, "settings", "valid")
    folder = _var_folder(settings.var_dir)
    yield folder
    yield _apart(settings)
    running = _service(url)
    galleries: list[Gallery] = []
    if running.ready is not None:
        is_well = running.ready["checks"]["store"]
        yield Finding(
            OK if is_well else FAIL, "database", f"the service says: {'in order' if is_well else 'it is not'}"
        )
    elif settings.database_url is not None or folder.level != FAIL:
        finding, galleries = _database(settings)
        yield finding
    for pack_id in dict.fromkeys((*settings.packs, *(each for gallery in galleries for each in gallery.pack_ids))):
        yield from _pack(settings, pack_id, [gallery for gallery in galleries if pack_id in gallery.pack_ids])
    yield running.finding


@dataclass(frozen=True, slots=True)
class _Running:
    """What was found of a running service; `ready` is its answer to /readyz, None where none answers."""

    finding: Finding
    ready: Json | None


def _pack(settings: Settings, pack_id: str, galleries: Sequence[Gallery]) -> Iterator[Finding]:
    """Yield what `serve` would say of a pack and of the galleries that have it, with the codes it would end with."""
    from service.face.extractor import template_model_id  # noqa: PLC0415  (onnxruntime takes a second to import)
    from service.face.model_packs import installed_pack  # noqa: PLC0415  (slow to import)
    from service.face.unified import scale_of  # noqa: PLC0415  (slow to import)

    # where the settings do not name it, nothing else says why it is needed
    named = "" if pack_id in settings.packs else f"; needed by {', '.join(each.gallery_id for each in galleries)}"
    try:
        pack = installed_pack(settings.models_dir, pack_id, accepted_licences=frozenset(settings.accepted_licences))
        scale_of(pack)
    except BiodedupError as error:
        fetch = f"biodedup models fetch {pack_id}"
        advice = fetch if isinstance(error, PackNotInstalled) and fetch not in error.message else ""
        yield Finding(FAIL, "model pack", f"{error.message}{named} ({error.code})", advice)
        yield _calibration(settings.models_dir, pack_id, None)
        return
    yield Finding(OK, "model pack", f"{pack_id} is installed and intact{named}")
    model_id = template_model_id(pack)
    yield _calibration(settings.models_dir, pack_id, model_id)
    for gallery in galleries:
        made_by = gallery.model_id if gallery.pack_id == pack_id else gallery.standby_model_id
        if made_by not in {None, model_id}:
            says = f"{gallery.gallery_id} holds templates of {made_by}, installed is {model_id} ({PackMismatch.code})"
            yield Finding(FAIL, "gallery", says, "Run the version that enrolled them, or enrol anew in a new database.")


def _calibration(models_dir: Path, pack_id: str, model_id: str | None) -> Finding:
    """Look at a pack's calibration; `model_id` is that of its templates, None where it could not be found out."""
    file = models_dir / pack_id / "calibration.json"
    advice = f"biodedup calibrate DIR --pack {pack_id} --out {file}"
    try:
        calibration = Calibration.from_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        says = f"{pack_id} has none: scores mean nothing without it ({PackNotInstalled.code})"
        return Finding(FAIL, "calibration", says, advice)
    except (OSError, ValueError):
        says = f"that of {pack_id} cannot be read, or was changed ({PackManifestInvalid.code})"
        return Finding(FAIL, "calibration", says, f"Restore {file}.")
    if calibration.pack_id != pack_id or model_id not in {None, calibration.model_id}:
        says = f"that of {pack_id} was made for {calibration.model_id} ({PackManifestInvalid.code})"
        return Finding(FAIL, "calibration", says, advice)
    return Finding(OK, "calibration", f"{pack_id}: {calibration.people:,} people, {calibration.population}")


def _var_folder(var_dir: Path) -> Finding:
    """Look for the folder, or for the nearest one above it in which it could be made."""
    var_dir = existing = var_dir.absolute()
    try:
        while not existing.exists():
            existing = existing.parent
        # by doing it: permissions alone do not tell of a read-only disk or a folder of the kernel
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        says = f"{var_dir} cannot be used: {error.strerror} ({VarUnusable.code})"
        return Finding(FAIL, "var folder", says, "Set BIODEDUP_VAR_DIR to a folder that this user can make and write.")
    if existing != var_dir:
        return Finding(OK, "var folder", f"{var_dir} is made at the first start")
    if existing.stat().st_mode & 0o077:
        return Finding(WARN, "var folder", f"others on this machine can look into {var_dir}", f"chmod 700 {var_dir}")
    return Finding(OK, "var folder", f"{var_dir} can be written")


def _apart(settings: Settings) -> Finding:
    """Look what of the record and its keys would be in one backup of the folder."""
    in_folder = {
        "the record": settings.database_url is None,
        "the key store": settings.key_database_url is None,
        "the master key": settings.master_key_source == "file",
        "the ledger of erasures": settings.ledger_dir is None,
    }
    together = [name for name, is_inside in in_folder.items() if is_inside]
    if len(together) < 2:
        return Finding(OK, "backups", "the record, its keys and the ledger of erasures lie apart")
    advice = 'Right for a first try. Before real people: "Backups" in docs/encryption.md.'
    return Finding(WARN, "backups", f"{', '.join(together)} lie in one folder", advice)


def _service(url: str) -> _Running:
    try:
        with ServiceClient(url) as client:
            ready = client.get("/readyz", accept=(200, 503))
    except CommandFailed as failure:
        return _Running(Finding(WARN, "service", failure.message), None)
    warnings = "; ".join(str(warning) for warning in ready["warnings"])
    if ready["status"] != "ready":
        missing = ", ".join(name for name, is_well in ready["checks"].items() if not is_well)
        return _Running(Finding(FAIL, "service", f"the one at {url} is not ready: {missing}", warnings), ready)
    return _Running(Finding(WARN if warnings else OK, "service", f"ready at {url}", warnings), ready)


def _keys(settings: Settings, known: str | None) -> Finding | None:
    """Return what `serve` would say of the keys of the record and of the ledger, None where it finds them."""
    from service.app import keys_folder, keys_url, ledger_folder, master_key_source  # noqa: PLC0415  (slow to import)
    from service.encrypted_store import check_keys  # noqa: PLC0415  (slow to import)
    from service.erasure_ledger import ledger_of  # noqa: PLC0415  (slow to import)

    try:
        check_keys(keys_url(settings), master_key_source(settings).opener(keys_folder(settings)), known)
    except BiodedupError as error:
        return Finding(FAIL, "keys", f"{error.message} ({error.code})", "docs/encryption.md says what to restore.")
    try:
        ledger_of(ledger_folder(settings))
    except BiodedupError as error:
        return Finding(FAIL, "ledger", f"{error.message} ({error.code})", "docs/erasure.md says how it is mended.")
    return None


def _database(settings: Settings) -> tuple[Finding, list[Gallery]]:
    """Return what was found, and the galleries where they can be read."""
    from service.store.sql_store import SqlStore  # noqa: PLC0415  (slow to import)

    if settings.database_url is None:
        try:
            owner = owner_of(settings.var_dir)
        except VarUnusable as error:
            return Finding(FAIL, "database", f"{error.message} ({error.code})"), []
        if owner is not None:
            says = f"in use by process {owner.pid}, which serves at {owner.url or 'no address'}"
            return Finding(OK, "database", says), []
        file = settings.var_dir / SQLITE_FILE
        if not file.exists():
            return Finding(OK, "database", "made at the first start"), []
        address = f"sqlite:///{file}"
    else:
        address = settings.database_url.get_secret_value()
    try:
        with closing(SqlStore(address)) as store:
            if store.is_migrated():
                galleries, known = store.galleries(), store.key_store_id()
                return _keys(settings, known) or Finding(OK, "database", "reachable and migrated"), galleries
    except BiodedupError as error:
        return Finding(FAIL, "database", error.message, "Is the database running, and is its address right?"), []
    says = "reachable; the next start of the service migrates it. The packs of its galleries cannot be checked before"
    return Finding(WARN, "database", says, "Make a backup first."), []
