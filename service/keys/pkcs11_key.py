"""The master key in a PKCS#11 token: it never leaves the token, which wraps and unwraps by AES-GCM itself.

Source: RFC 7512 (addresses `pkcs11:`), PKCS #11 2.40 section 2.12 (AES-GCM).
"""

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn

from service.ciphers import KEY_BYTES, NONCE_BYTES, TAG_BYTES
from service.errors import MasterKeyUnusable
from service.keys.secrets import wrong_key
from service.ports import Wrapped

T = TypeVar("T")

_TEMPLATE = {
    Attribute.EXTRACTABLE: False,
    Attribute.SENSITIVE: True,
    Attribute.PRIVATE: True,
    Attribute.MODIFIABLE: False,
    Attribute.WRAP: False,
    Attribute.UNWRAP: False,
}


class Pkcs11MasterKey:
    """`service.ports.MasterKey` over the AES keys of one label in a token. Threads may share it.

    Each key has an id that sorts by time; the highest wraps.
    """

    def __init__(self, address: str, pin: str | None, *, may_create: bool) -> None:
        """Open the token, and make the key where there is none yet.

        Args:
            address: `pkcs11:token=NAME;object=LABEL?module-path=/path/to/module.so`.
            pin: of the user.
            may_create: whether to make the key where there is none.

        Raises:
            MasterKeyUnusable
        """
        self._parts = _parse(address)
        self._pin = pin
        self._lock = threading.Lock()  # a session does one thing at a time
        self._session: Any = None
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self._expect_key(may_create=may_create)
            on_failure.pop_all()

    @property
    def key_id(self) -> str:
        return self._do(self._ids)[-1]

    def wrap(self, secret: bytes, context: bytes) -> Wrapped:
        """Return a secret wrapped. Raises MasterKeyUnusable."""

        def wrapping() -> Wrapped:
            key_id, nonce = self._ids()[-1], secrets.token_bytes(NONCE_BYTES)
            sealed = self._key(key_id).encrypt(secret, **_gcm(nonce, context))
            return Wrapped(key_id, nonce + sealed)

        return self._do(wrapping)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return what the key of that name wrapped. Raises MasterKeyUnusable."""

        def unwrapping() -> bytes:
            ids = self._ids()
            if key_id not in ids:
                raise wrong_key(key_id, ", ".join(ids) or "none")
            opened: bytes = self._key(key_id).decrypt(wrapped[NONCE_BYTES:], **_gcm(wrapped[:NONCE_BYTES], context))
            return opened

        return self._do(unwrapping)

    def renew(self) -> None:
        """Have the token draw another key of this label. Raises MasterKeyUnusable."""
        self._do(self._generate)

    def retire(self) -> None:
        """Nothing: earlier keys stay in the token until its owner deletes them; old backups need them."""

    def close(self) -> None:
        with self._lock:
            self._forget_session()

    def _expect_key(self, *, may_create: bool) -> None:
        if not self._do(self._ids):
            if not may_create:
                raise MasterKeyUnusable(
                    f"the token has no key of the label {self._parts['object']}, and gallery keys are wrapped by one: "
                    "restore the token; nothing was written"
                )
            self._do(self._generate)

    def _do(self, work: Callable[[], T]) -> T:
        """Do it in the session, and once more in a new one: a token that was restarted has forgotten the old one."""
        with self._lock:
            for is_last in (False, True):
                try:
                    if self._session is None:
                        self._session = self._open()
                    return work()
                except PKCS11Error as error:
                    self._forget_session()
                    if is_last:
                        raise MasterKeyUnusable(f"the PKCS#11 token refuses ({type(error).__name__})") from error
        raise AssertionError("one of the two has returned or raised")

    def _forget_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(PKCS11Error):  # a token that is gone has closed it
                session.close()

    def _open(self) -> Any:
        try:
            library = pkcs11.lib(self._parts["module-path"])
        except (RuntimeError, PKCS11Error) as error:
            raise MasterKeyUnusable("the PKCS#11 module cannot be loaded: look at module-path") from error
        token = library.get_token(token_label=self._parts["token"])
        try:
            return token.open(rw=True, user_pin=self._pin)
        except UserAlreadyLoggedIn:  # with another session of this process: a login is for all of them
            return token.open(rw=True)

    def _ids(self) -> list[str]:
        wanted = {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.LABEL: self._parts["object"],
        }
        return sorted(key.id.hex() for key in self._session.get_objects(wanted))

    def _key(self, key_id: str) -> Any:
        return self._session.get_key(
            object_class=ObjectClass.SECRET_KEY, label=self._parts["object"], id=bytes.fromhex(key_id)
        )

    def _generate(self) -> None:
        key_id = int(time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(2)
        self._session.generate_key(
            KeyType.AES, KEY_BYTES * 8, id=key_id, label=self._parts["object"], store=True, template=_TEMPLATE
        )


def _gcm(nonce: bytes, context: bytes) -> dict[str, Any]:
    return {"mechanism": Mechanism.AES_GCM, "mechanism_param": pkcs11.GCMParams(nonce, context, TAG_BYTES * 8)}


def _parse(address: str) -> dict[str, str]:
    """Raises MasterKeyUnusable."""
    path, _, query = address.removeprefix("pkcs11:").partition("?")
    parts = {name: unquote(value) for name, _, value in (each.partition("=") for each in path.split(";"))}
    parts |= dict(parse_qsl(query))
    if not {"token", "object", "module-path"} <= {name for name, value in parts.items() if value}:
        raise MasterKeyUnusable("a PKCS#11 key is named pkcs11:token=NAME;object=LABEL?module-path=/path/to/module.so")
    return parts
