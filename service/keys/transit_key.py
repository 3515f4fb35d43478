"""The master key in a Vault-compatible transit engine (OpenBao, HashiCorp Vault): it never leaves that server.

Source: https://openbao.org/api-docs/secret/transit/ (encrypt and decrypt with `associated_data`, rotate).
"""

import base64
import binascii
import re
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx

from service.errors import MasterKeyUnusable
from service.keys.secrets import wrong_key
from service.ports import Wrapped

TIMEOUT_S = 10.0
_KEY_TYPE = "aes256-gcm96"
_CIPHERTEXT = re.compile(rb"vault:v(\d+):")
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


class TransitMasterKey:
    """`service.ports.MasterKey` over one key of a transit engine, with its versions. Threads may share it."""

    def __init__(self, address: str, token: str | None, *, may_create: bool) -> None:
        """Look the key up, and make it where there is none yet.

        Args:
            address: `transit:https://HOST:PORT/MOUNT/KEY`; plain http to this machine only.
            token: that may read, encrypt, decrypt and (to rotate) rotate it.
            may_create: whether to make the key where there is none.

        Raises:
            MasterKeyUnusable
        """
        base, self._mount, self._name = _parse(address)
        # no redirect is followed and no proxy of the environment used: the token goes to this server alone
        self._client = httpx.Client(
            base_url=f"{base}/v1/", headers={"X-Vault-Token": token or ""}, timeout=TIMEOUT_S, trust_env=False
        )
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self._expect_key(may_create=may_create)
            on_failure.pop_all()

    @property
    def key_id(self) -> str:
        data = self._read()
        if data is None:
            raise MasterKeyUnusable(f"the transit engine has no key {self._name} any more")
        return self._id_of(int(data["latest_version"]))

    def wrap(self, secret: bytes, context: bytes) -> Wrapped:
        """Return a secret wrapped. Raises MasterKeyUnusable."""
        data = self._post(f"encrypt/{self._name}", {"plaintext": _text(secret), "associated_data": _text(context)})
        sealed = str(data["ciphertext"]).encode()
        return Wrapped(self._id_of(_version_of(sealed)), sealed)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return what the key of that name wrapped. Raises MasterKeyUnusable."""
        if key_id != self._id_of(_version_of(wrapped)):
            raise wrong_key(key_id, self._id_of(_version_of(wrapped)))
        sealed = {"ciphertext": wrapped.decode("ascii", "replace"), "associated_data": _text(context)}
        try:
            return base64.b64decode(self._post(f"decrypt/{self._name}", sealed)["plaintext"], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise MasterKeyUnusable("the transit engine answers something else than a plaintext") from error

    def renew(self) -> None:
        """Have the engine draw another version. Raises MasterKeyUnusable."""
        self._post(f"keys/{self._name}/rotate", {})

    def retire(self) -> None:
        """Nothing: earlier versions stay in the engine until its owner raises `min_decryption_version`."""

    def close(self) -> None:
        self._client.close()

    def _expect_key(self, *, may_create: bool) -> None:
        if self._read() is None:
            if not may_create:
                raise MasterKeyUnusable(
                    f"the transit engine has no key {self._name}, and gallery keys are wrapped by it: restore it; "
                    "nothing was written"
                )
            self._post(f"keys/{self._name}", {"type": _KEY_TYPE})

    def _id_of(self, version: int) -> str:
        return f"{self._name} v{version}"

    def _read(self) -> dict[str, Any] | None:
        answer = self._send("GET", f"keys/{self._name}", None)
        return None if answer.status_code == 404 else _data(answer)

    def _post(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        return _data(self._send("POST", path, body))

    def _send(self, method: str, path: str, body: dict[str, str] | None) -> httpx.Response:
        try:
            return self._client.request(method, f"{self._mount}/{path}", json=body)
        except httpx.HTTPError as error:
            raise MasterKeyUnusable(f"the transit engine does not answer ({type(error).__name__})") from error


def _data(answer: httpx.Response) -> dict[str, Any]:
    """Return what an answer holds. Raises MasterKeyUnusable, with the status and no word of the server."""
    if answer.status_code == 204:
        return {}
    if answer.status_code != 200:
        raise MasterKeyUnusable(
            f"the transit engine refuses (HTTP {answer.status_code}): look at the key and the token"
        )
    try:
        data: dict[str, Any] = answer.json()["data"] or {}
    except (ValueError, KeyError, TypeError) as error:
        raise MasterKeyUnusable("what answers at this address is no transit engine") from error
    return data


def _version_of(sealed: bytes) -> int:
    found = _CIPHERTEXT.match(sealed)
    if found is None:
        raise MasterKeyUnusable("a wrapped gallery key is not of a transit engine: was the source changed?")
    return int(found[1])


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _parse(address: str) -> tuple[str, str, str]:
    """Return the server, the mount and the key. Raises MasterKeyUnusable."""
    parts = urlsplit(address.removeprefix("transit:"))
    mount, _, name = parts.path.strip("/").rpartition("/")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL_HOSTS)
    if not (is_safe and mount and re.fullmatch(r"[\w.-]+", name)) or parts.username or parts.query:
        raise MasterKeyUnusable(
            "a key of a transit engine is named transit:https://HOST:PORT/MOUNT/KEY; plain http to this machine only"
        )
    return f"{parts.scheme}://{parts.netloc}", mount, name
