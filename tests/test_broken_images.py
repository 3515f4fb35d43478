"""Thousands of broken images: each gets a 4xx with a code, memory stays, and the service still answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.errors import SampleRejected, all_errors
from tests.broken_images import KINDS, broken_image
from tests.faces import face_samples
from tests.server import Server

pytestmark = pytest.mark.models

CODES = {error.code for error in all_errors(SampleRejected)}
MAX_GROWTH_MIB = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("broken") / "var") as running:
        yield running


def send(server: Server, data: bytes) -> httpx.Response:
    files = {"sample": ("face.jpg", data, "image/jpeg")}
    return httpx.post(f"{server.url}/v1/galleries/default/enrolments", files=files, timeout=60)


def rejected(server: Server, numbers: range) -> list[int]:
    """Send these broken images from four clients and return the numbers of those that were not rejected properly."""

    def is_wrong(number: int) -> bool:
        answer = send(server, broken_image(number))
        return not (400 <= answer.status_code < 500 and answer.json()["code"] in CODES)

    with ThreadPoolExecutor(4) as clients:
        return [number for number, wrong in zip(numbers, clients.map(is_wrong, numbers), strict=True) if wrong]


def run(server: Server, count: int) -> None:
    for sample in face_samples(6):
        assert send(server, sample).status_code == 201
    assert rejected(server, range(2 * len(KINDS))) == []
    before = server.resident_mib()
    assert rejected(server, range(count)) == []
    assert server.resident_mib() - before < MAX_GROWTH_MIB
    assert send(server, face_samples(7)[6]).status_code == 201


def test_a_hundred_and_fifty_broken_images_are_rejected_with_a_code(server: Server) -> None:
    run(server, 150)


@pytest.mark.soak
def test_two_thousand_broken_images_are_rejected_with_a_code(server: Server) -> None:
    run(server, 2000)
