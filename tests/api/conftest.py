"""One running application for all tests of the HTTP interface; each test has a gallery of its own."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.api.live import fake_app, fake_settings, running, wait_until_ready

MAX_SAMPLES = 3
MAX_REQUEST_BYTES = 4 * 1024 * 1024

_numbers = itertools.count(1)

Enrol = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def live_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the application."""
    folder = tmp_path_factory.mktemp("api") / "var"
    settings = fake_settings(
        folder, max_samples=MAX_SAMPLES, max_sample_bytes=2 * 1024 * 1024, max_request_bytes=MAX_REQUEST_BYTES
    )
    with running(fake_app(settings)) as url:
        yield url


@pytest.fixture(scope="session")
def client(live_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_url, timeout=30) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture
def gallery(client: httpx.Client) -> str:
    """Path of a new, empty gallery."""
    gallery_id = f"test-{next(_numbers)}"
    answer = client.post("/v1/galleries", json={"gallery_id": gallery_id})
    assert answer.status_code == 201, answer.text
    return f"/v1/galleries/{gallery_id}"


@pytest.fixture
def enrol(client: httpx.Client, gallery: str) -> Enrol:
    """Enrol a sample with fields and return the answer."""

    def enrol(sample: bytes, **fields: str) -> dict[str, Any]:
        answer = client.post(f"{gallery}/enrolments", files={"sample": sample}, data=fields)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return enrol
