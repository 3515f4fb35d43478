"""Runs the migrations from code: no alembic.ini, no logging set up by the way."""

import threading
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from service.errors import StoreUnavailable

# Alembic keeps the running migration in module globals
_one_at_a_time = threading.Lock()


def _config() -> Config:
    config = Config()
    # a % in the path would be read as the beginning of an interpolation
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def head_revision() -> str | None:
    """Return the revision that this code expects."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def upgrade(connection: Connection) -> None:
    """Bring the database to the newest revision, inside the transaction of `connection`.

    Raises:
        StoreUnavailable: the database has a revision that this code does not know.
    """
    config = _config()
    config.attributes["connection"] = connection
    try:
        with _one_at_a_time:
            command.upgrade(config, "head")
    except CommandError as error:
        raise StoreUnavailable("the record was made by a newer version of biodedup") from error
