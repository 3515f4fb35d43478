"""Random changes of images, forms and JSON: no fault, no crash, no growth; planted faults are found."""

import importlib.util
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api import bodies, samples
from service.face import image
from service.face.image import ImageLimits, decode
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.fake_embedder import FakeEmbedder
from tests.security import corpus
from tests.security.bombs import processes, resident_mib
from tests.security.fuzzing import Send, fuzz_forms, fuzz_images, fuzz_json, grown_mib
from tests.server import Server

Fuzz = Callable[..., None]

KINDS: dict[str, tuple[Fuzz, int]] = {
    "images": (fuzz_images, 100),
    "forms": (fuzz_forms, 250),
    "json": (fuzz_json, 250),
}
"""How many requests of each are sent with every test."""
WARM_UP = 40
"""Requests before memory is looked at: the first of each kind load and cache."""
MAX_GROWTH_MIB = 60
"""Over all processes. 250 requests of up to 40 kB would leave 10 MiB if all were kept."""

SOAK_S = float(os.environ.get("BIODEDUP_TEST_FUZZ_S", "300"))
_SOAK_BATCH = 300
_MAX_SOAK_GROWTH_MIB = 150


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("fuzzed") / "var") as found:
        yield found


@pytest.fixture(scope="module")
def send(server: Server) -> Iterator[Send]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http.request


@pytest.mark.models
@pytest.mark.parametrize("kind", KINDS)
def test_what_callers_may_send_makes_no_fault_no_crash_and_no_growth(server: Server, send: Send, kind: str) -> None:
    fuzz, examples = KINDS[kind]
    fuzz(send, WARM_UP, number=1)
    before = processes(server)
    assert grown_mib(lambda: resident_mib(server), lambda: fuzz(send, examples)) < MAX_GROWTH_MIB
    assert processes(server) == before
    assert send("GET", "/readyz").json()["status"] == "ready"


@pytest.mark.soak
@pytest.mark.models
@pytest.mark.parametrize("kind", KINDS)
def test_minutes_of_what_callers_may_send(server: Server, send: Send, kind: str) -> None:
    """BIODEDUP_TEST_FUZZ_S seconds of each kind; a failure names the seed, and the same seed repeats it."""
    fuzz, _ = KINDS[kind]
    fuzz(send, _SOAK_BATCH)
    before, end = processes(server), time.monotonic() + SOAK_S

    def work() -> None:
        for number in itertools.count(1):
            if time.monotonic() > end:
                return
            fuzz(send, _SOAK_BATCH, number=number)

    assert grown_mib(lambda: resident_mib(server), work) < _MAX_SOAK_GROWTH_MIB
    assert processes(server) == before


@pytest.mark.soak
def test_minutes_of_the_decoder_under_a_coverage_guided_fuzzer(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    seeds = tmp_path / "corpus"
    seeds.mkdir()
    for number, data in enumerate(corpus.images()):
        (seeds / str(number)).write_bytes(data)
    options = [f"-max_total_time={int(SOAK_S)}", "-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, "-m", "tests.security.fuzz_decoder", *options, str(seeds)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SOAK_S + 120, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]


def test_the_corpus_is_small_and_whole() -> None:
    assert sum(map(len, corpus.images())) < 100_000
    assert [decode(each, ImageLimits()).shape[2] for each in corpus.images()] == [3] * len(corpus.images())


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Send]:
    """The application inside this process, with the real decoder before the embedder that needs no weights."""
    as_ever = FakeEmbedder.extract

    def extract(embedder: Any, data: bytes, policy: Any) -> Any:
        decode(data, ImageLimits())
        return as_ever(embedder, data, policy)

    monkeypatch.setattr(FakeEmbedder, "extract", extract)
    app = fake_app(fake_settings(tmp_path / "var"))
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as http:
        wait_until_ready(http)
        yield http.request


def decoders_errors_that_nobody_expects(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(image, "_FOREIGN", (EOFError,))


def forms_that_are_expected_to_be_whole(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bodies._FormReader, "write", lambda reader, chunk: reader._parser.write(chunk))


def problems_that_are_expected_to_lie_deep(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(samples, "explain", lambda problems, _fields: str(problems[0]["loc"][1]))


HOLES = {
    "images": decoders_errors_that_nobody_expects,
    "forms": forms_that_are_expected_to_be_whole,
    "json": problems_that_are_expected_to_lie_deep,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_fault_is_found(planted: Send, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    fuzz, examples = KINDS[kind]
    HOLES[kind](monkeypatch)
    with pytest.raises(AssertionError, match="internal_error"):
        fuzz(planted, examples)


def test_a_planted_leak_is_found(planted: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a megabyte of each request is kept."""
    kept: list[bytes] = []
    as_ever = bodies._media_type

    def leaking(request: Any) -> Any:
        kept.append(os.urandom(1) * 2**19)
        return as_ever(request)

    def own_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    monkeypatch.setattr(bodies, "_media_type", leaking)
    assert grown_mib(own_mib, lambda: fuzz_forms(planted, KINDS["forms"][1])) > MAX_GROWTH_MIB
