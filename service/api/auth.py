"""Who calls: what the `Authorization` header of a request proves."""

import anyio
import anyio.to_thread
from fastapi import Request

from service.access import LOCAL, Caller
from service.api.context import startup_of
from service.api.oidc import OidcProvider, refused
from service.api_keys import PREFIX

_SCHEME = "bearer "
_MAX_CREDENTIAL = 16_384  # characters; a header of this length was read already
_THREADS = 4  # of their own: under load all others may be waiting for a face to be embedded


class Authentication:
    """Asks each request who sends it.

    Args:
        is_on: False: whoever reaches the service may do everything; it must listen on this machine alone.
        provider: of tokens; None: API keys alone.
    """

    def __init__(self, *, is_on: bool, provider: OidcProvider | None = None) -> None:
        self.is_on = is_on
        self._provider = provider
        self._key_threads: anyio.CapacityLimiter | None = None
        self._token_threads: anyio.CapacityLimiter | None = None

    async def caller(self, request: Request) -> Caller:
        """Return who sends a request.

        Raises:
            Unauthenticated: it has no credential, or one that does not hold.
            NotReady, StoreUnavailable, ProviderUnavailable
        """
        if not self.is_on:
            return LOCAL
        given = request.headers.getlist("Authorization")
        if len(given) != 1 or given[0][: len(_SCHEME)].lower() != _SCHEME or len(given[0]) > _MAX_CREDENTIAL:
            raise refused()
        credential = given[0][len(_SCHEME) :].strip()
        found = await (
            self._of_key(request, credential) if credential.startswith(PREFIX) else self._of_token(credential)
        )
        if found is None:
            raise refused()
        return found

    async def _of_key(self, request: Request, text: str) -> Caller | None:
        keys = startup_of(request).service().clients.keys
        found = keys.remembered(text)
        if found is not None:
            return found
        if self._key_threads is None:
            self._key_threads = anyio.CapacityLimiter(_THREADS)
        return await anyio.to_thread.run_sync(keys.look_up, text, limiter=self._key_threads)

    async def _of_token(self, token: str) -> Caller | None:
        provider = self._provider
        if provider is None:
            return None
        found = provider.remembered(token)
        if found is not None:
            return found
        # apart from those of the keys: a provider that does not answer must not hold up who has a key
        if self._token_threads is None:
            self._token_threads = anyio.CapacityLimiter(_THREADS)
        return await anyio.to_thread.run_sync(provider.look_up, token, limiter=self._token_threads)


def authentication_of(request: Request) -> Authentication:
    found = request.app.state.authentication
    assert isinstance(found, Authentication)
    return found
