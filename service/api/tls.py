"""https by the built-in server: TLS 1.2 and newer, with certificate files that may change while it runs."""

import logging
import os
import ssl
import stat
from pathlib import Path

from service.errors import SettingsInvalid
from service.logs import log_event

_log = logging.getLogger(__name__)

# what Mozilla calls intermediate (https://wiki.mozilla.org/Security/Server_Side_TLS), less finite-field key exchange:
# forward secrecy and authenticated encryption only. TLS 1.3 has suites of its own, all of them good
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Certificate:
    """A certificate chain and its key, in files."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """Raises SettingsInvalid: a file is missing, not PEM, not of the other, or others may read the key."""
        self._cert_file, self._key_file = cert_file, key_file
        self._seen = self._state()
        self.context = self._load()

    def reload_if_changed(self) -> None:
        """Take over changed files for new connections; wrong ones leave those before in use, and are logged."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._load()  # into a context of its own: half of a bad pair must not reach the one in use
            self.context.load_cert_chain(self._cert_file, self._key_file, password=_no_password)
        except (SettingsInvalid, OSError) as error:
            log_event(_log, "tls.certificate_refused", level=logging.ERROR, error=error)
        else:
            log_event(_log, "tls.certificate_loaded")

    def _state(self) -> tuple[tuple[int, ...], ...]:
        return _state_of(self._cert_file), _state_of(self._key_file)

    def _load(self) -> ssl.SSLContext:
        """Raises SettingsInvalid."""
        for name, path in (("TLS_CERT_FILE", self._cert_file), ("TLS_KEY_FILE", self._key_file)):
            if not path.is_file() or not os.access(path, os.R_OK):
                raise SettingsInvalid(f"BIODEDUP_{name}: there is no such file, or it cannot be read")
        if self._key_file.stat().st_mode & stat.S_IRWXO:
            raise SettingsInvalid("BIODEDUP_TLS_KEY_FILE: everybody on this machine may use the key: chmod o= FILE")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert_file, self._key_file, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise SettingsInvalid(
                "BIODEDUP_TLS_CERT_FILE and BIODEDUP_TLS_KEY_FILE: not a certificate chain and its own key, in PEM and "
                "without a password"
            ) from error
        return context


def _no_password() -> str:
    """OpenSSL would ask the terminal, where nobody is."""
    raise ValueError("the key has a password")


def _state_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
