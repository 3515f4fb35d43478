"""Which master key the settings name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.errors import MasterKeyUnusable
from service.keys.file_key import FileMasterKey
from service.keys.secrets import EnvironmentMasterKey
from service.keys.transit_key import TransitMasterKey
from service.ports import MasterKey

MASTER_KEY_FILE = "master.key"


@dataclass(frozen=True, slots=True)
class MasterKeySource:
    """Where the master key is kept, and what it takes to get at it."""

    source: str = "file"  # BIODEDUP_MASTER_KEY_SOURCE
    key: str | None = None
    next_key: str | None = None
    pin: str | None = None
    token: str | None = None

    def opener(self, folder: Path) -> Callable[[bool], MasterKey]:
        """Return what opens it, told whether a new key may be made; `folder` holds the file by default."""
        return lambda may_create: self._open(folder, may_create=may_create)

    def _open(self, folder: Path, *, may_create: bool) -> MasterKey:
        """Raises MasterKeyUnusable."""
        kind, _, address = self.source.partition(":")
        if kind == "file":
            return FileMasterKey(Path(address) if address else folder / MASTER_KEY_FILE, may_create=may_create)
        if kind == "env":
            if self.key is None:
                raise MasterKeyUnusable("BIODEDUP_MASTER_KEY_SOURCE is env, and BIODEDUP_MASTER_KEY is not set")
            return EnvironmentMasterKey(self.key, self.next_key)
        if kind == "transit":
            return TransitMasterKey(self.source, self.token, may_create=may_create)
        if kind == "pkcs11":
            try:
                from service.keys.pkcs11_key import Pkcs11MasterKey  # noqa: PLC0415  (an optional library)
            except ImportError as error:
                raise MasterKeyUnusable("tokens need a library: pip install biodedup[pkcs11]") from error
            return Pkcs11MasterKey(self.source, self.pin, may_create=may_create)
        raise MasterKeyUnusable("BIODEDUP_MASTER_KEY_SOURCE begins with file, env, pkcs11: or transit:")
