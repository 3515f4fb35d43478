"""`biodedup check`: is everything in place? It changes nothing, also beside a running service."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import typer

from service.calibration import Calibration
from service.cli.client import DEFAULT_URL, Json, ServiceClient, UrlOption
from service.cli.failures import EXIT_FAILED, CommandFailed
from service.cli.show import console, plain
from service.errors import BiodedupError, VarUnusable
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
    """Check settings, model packs, calibration, the var folder, the database, and whether a service runs.

    It changes nothing, and beside a running service it asks that service instead of opening its database.

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
    for pack_id in settings.packs:
        yield _pack(settings, pack_id)
        yield _calibration(settings.models_dir, pack_id)
    folder = _var_folder(settings.var_dir)
    yield folder
    running = _service(url)
    if running.ready is not None:
        is_well = running.ready["checks"]["store"]
        yield Finding(
            OK if is_well else FAIL, "database", f"the service says: {'in order' if is_well else 'it is not'}"
        )
    elif settings.database_url is not None or folder.level != FAIL:
        yield _database(settings)
    yield running.finding


@dataclass(frozen=True, slots=True)
class _Running:
    """What was found of a running service; `ready` is its answer to /readyz, None where none answers."""

    finding: Finding
    ready: Json | None


def _pack(settings: Settings, pack_id: str) -> Finding:
    from service.face.model_packs import verify_pack  # noqa: PLC0415  (onnxruntime takes a second to import)

    try:
        pack = verify_pack(settings.models_dir, pack_id)
    except BiodedupError as error:
        advice = f"biodedup models fetch {pack_id}"
        return Finding(FAIL, "model pack", error.message, "" if advice in error.message else advice)
    if pack.manifest.licence.restricted and pack_id not in settings.accepted_licences:
        return Finding(
            FAIL,
            "model pack",
            f"{pack_id}: {pack.manifest.licence.plain_words}",
            f"If that is your use, set BIODEDUP_ACCEPTED_LICENCES={pack_id}",
        )
    return Finding(OK, "model pack", f"{pack_id} is installed and intact")


def _calibration(models_dir: Path, pack_id: str) -> Finding:
    file = models_dir / pack_id / "calibration.json"
    try:
        calibration = Calibration.from_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        advice = f"biodedup calibrate DIR --pack {pack_id} --out {file}"
        return Finding(FAIL, "calibration", f"{pack_id} has none: scores mean nothing without it", advice)
    except (OSError, ValueError):
        return Finding(FAIL, "calibration", f"that of {pack_id} cannot be read, or was changed", f"Restore {file}.")
    if calibration.pack_id != pack_id:
        return Finding(FAIL, "calibration", f"that of {pack_id} was made for {calibration.pack_id}")
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


def _database(settings: Settings) -> Finding:
    from service.store.sql_store import SqlStore  # noqa: PLC0415  (slow to import)

    if settings.database_url is None:
        try:
            owner = owner_of(settings.var_dir)
        except VarUnusable as error:
            return Finding(FAIL, "database", f"{error.message} ({error.code})")
        if owner is not None:
            says = f"in use by process {owner.pid}, which serves at {owner.url or 'no address'}"
            return Finding(OK, "database", says)
        file = settings.var_dir / SQLITE_FILE
        if not file.exists():
            return Finding(OK, "database", "made at the first start")
        address = f"sqlite:///{file}"
    else:
        address = settings.database_url.get_secret_value()
    try:
        with closing(SqlStore(address)) as store:
            if store.is_migrated():
                return Finding(OK, "database", "reachable and migrated")
    except BiodedupError as error:
        return Finding(FAIL, "database", error.message, "Is the database running, and is its address right?")
    return Finding(WARN, "database", "reachable; the next start of the service migrates it", "Make a backup first.")
