"""The API key of the demo: made at the first start, and kept for its owner beside its photographs."""

import os
from pathlib import Path

from service.access import Role
from service.cli.client import ServiceClient
from service.cli.failures import CommandFailed

KEY = "key"

_CLIENT = "demo"


def demo_key(url: str, folder: Path, first_key: str | None) -> Path | None:
    """Return the file of a key that may do all that the demo shows, None where nobody is asked for one.

    Args:
        url: of the running service.
        folder: of the demo.
        first_key: of the administrator that this start of the service made, None: there were clients before.

    Raises:
        CommandFailed: no key is at hand that could make one.
    """
    if os.environ.get("BIODEDUP_AUTH", "").strip().lower() == "off":
        return None
    file = folder / KEY
    if first_key is None and file.exists():
        return file
    admin_key = first_key or os.environ.get("BIODEDUP_API_KEY")
    if not admin_key:
        raise CommandFailed(
            "this folder has clients already, and none of their keys is at hand",
            "unauthenticated",
            advice="Set BIODEDUP_API_KEY to the key of an administrator (`biodedup clients recover` makes one), or "
            "choose another folder with BIODEDUP_VAR_DIR.",
        )
    with ServiceClient(url, key=admin_key) as client:
        key = _new_key(client)
    file.unlink(missing_ok=True)
    file.touch(0o600)
    file.write_text(f"{key}\n")
    return file


def _new_key(client: ServiceClient) -> str:
    """Return a key of the client `demo`, which may do everything everywhere. Raises CommandFailed."""
    wanted = {"name": _CLIENT, "grants": [f"{role}:*" for role in Role]}
    try:
        return str(client.post_json("/v1/clients", wanted)["key"])
    except CommandFailed as failure:
        if failure.code != "client_exists":
            raise
    return str(client.post_json(f"/v1/clients/{_CLIENT}/rotations", {"overlap_s": 0})["key"])
