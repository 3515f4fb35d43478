"""Health, readiness, metrics, and documentation that works without another machine."""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Request, sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.domain import FacePolicy, Template
from service.packs import Pack, Packs
from tests.api.conftest import Enrol
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.fake_embedder import PACK_ID, FakeEmbedder, fake_packs

CHROMIUM = shutil.which("chromium")


def samples(client: httpx.Client) -> list[tuple[str, dict[str, str], float]]:
    text = client.get("/metrics").text
    return [(s.name, s.labels, s.value) for family in text_string_to_metric_families(text) for s in family.samples]


def value(client: httpx.Client, name: str, **labels: str) -> float:
    """Return the sum of the samples of this name that bear these labels; 0 when there is none."""
    return sum(number for found, has, number in samples(client) if found == name and labels.items() <= has.items())


def test_a_living_process_says_so(client: httpx.Client) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_a_ready_service_shows_each_index_beside_its_record(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1")
    enrol(b"ben/1", subject_id="S-1")
    client.delete(f"{gallery}/subjects/S-1")
    answer = client.get("/readyz")
    body = answer.json()
    assert answer.status_code == 200
    assert body["status"] == "ready"
    assert body["checks"] == {"models": True, "store": True, "index": True}
    (found,) = [each for each in body["galleries"] if each["gallery_id"] == gallery.rpartition("/")[2]]
    assert 0 <= found.pop("expected_fnir") < 0.1
    assert found == {
        "gallery_id": gallery.rpartition("/")[2],
        "pack_id": "fake",
        "high_water_mark": 3,
        "last_seq": 3,
        "index_templates": 1,
        "record_templates": 1,
        "in_step": True,
    }


def test_the_default_gallery_is_there_from_the_first_start(client: httpx.Client) -> None:
    assert client.get("/v1/galleries/default").status_code == 200


@pytest.fixture
def own_app(tmp_path: Path) -> Iterator[tuple[FastAPI, httpx.Client]]:
    """An application of this test alone, to be broken."""
    app = fake_app(fake_settings(tmp_path / "var", fnir_warning=0.0))
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_until_ready(client)
        yield app, client


def test_a_threshold_that_misses_too_much_warns_everywhere(
    own_app: tuple[FastAPI, httpx.Client],
) -> None:
    _, client = own_app
    client.patch("/v1/galleries/default", json={"review_fpir": 1e-6, "duplicate_fpir": 1e-6})
    answer = client.post("/v1/galleries/default/enrolments", files={"sample": b"anna/1"}).json()
    assert answer["thresholds"]["expected_fnir"] > 0
    assert client.get("/readyz").json()["galleries"][0]["expected_fnir"] > 0
    assert value(client, "biodedup_fnir_warning", gallery="default") == 1
    assert value(client, "biodedup_expected_fnir", gallery="default") > 0


def test_a_record_that_does_not_answer_makes_the_service_unready(
    own_app: tuple[FastAPI, httpx.Client], tmp_path: Path
) -> None:
    _, client = own_app
    for path in (tmp_path / "var").glob("*.sqlite*"):
        path.unlink()
    client.post("/v1/galleries/default/enrolments", files={"sample": b"anna/1"})
    app, _ = own_app
    app.state.startup.service().store.close()  # its connections still hold the file that was removed
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["store"] is False
    assert answer.headers["retry-after"]
    assert client.get("/metrics").status_code == 200


def test_requests_are_counted_by_pattern_never_by_path(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    route = "/v1/galleries/{gallery_id}/subjects/{subject_id}"
    before = value(client, "biodedup_requests_total", method="GET", route=route, status="200")
    enrol(b"anna/1", subject_id="P-4711-secret")
    client.get(f"{gallery}/subjects/P-4711-secret")
    assert value(client, "biodedup_requests_total", method="GET", route=route, status="200") == before + 1
    assert value(client, "biodedup_request_seconds_count", route=route) >= 1
    assert "secret" not in client.get("/metrics").text


def test_invented_paths_and_methods_share_one_label(client: httpx.Client) -> None:
    for number in range(5):
        client.request("PROPFIND", f"/invented/{number}")
    routes = {labels["route"] for name, labels, _ in samples(client) if name == "biodedup_requests_total"}
    assert "other" in routes
    assert not any("invented" in route for route in routes)
    assert value(client, "biodedup_requests_total", method="other", route="other", status="404") >= 5
    assert value(client, "biodedup_requests_total", method="PROPFIND") == 0


def test_errors_are_counted_by_code(client: httpx.Client) -> None:
    before = value(client, "biodedup_errors_total", code="gallery_not_found")
    client.get("/v1/galleries/none")
    assert value(client, "biodedup_errors_total", code="gallery_not_found") == before + 1


def test_a_scrape_shows_galleries_and_indexes_as_they_are_now(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1")
    enrol(b"anna/2")
    name = gallery.rpartition("/")[2]
    assert value(client, "biodedup_gallery_templates", gallery=name) == 2
    assert value(client, "biodedup_open_cases", gallery=name) == 1
    assert value(client, "biodedup_index_high_water_mark", gallery=name) == 2
    assert value(client, "biodedup_index_lag_changes", gallery=name) == 0
    assert value(client, "biodedup_fnir_warning", gallery=name) == 0


class SlowEmbedder(FakeEmbedder):
    """Holds every sample until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.arrived = threading.Semaphore(0)

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        self.arrived.release()
        assert self.let_go.wait(30)
        return super().extract(data, policy)


def test_health_answers_while_every_thread_is_busy(tmp_path: Path) -> None:
    embedder = SlowEmbedder()
    packs = Packs({PACK_ID: Pack(embedder, fake_packs().of(PACK_ID).rule)})
    settings = fake_settings(tmp_path / "var", queue_limit=1, workers=1)  # 18 threads
    with running(create_app(settings, packs=packs)) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_until_ready(client)

        def send() -> None:
            httpx.post(f"{url}/v1/galleries/default/identifications", files={"sample": b"anna"}, timeout=60)

        threads = [threading.Thread(target=send) for _ in range(25)]
        for thread in threads:
            thread.start()
        for _ in range(18):
            assert embedder.arrived.acquire(timeout=30)
        statuses = [client.get(path, timeout=10).status_code for path in ("/healthz", "/readyz", "/metrics")]
        embedder.let_go.set()
        for thread in threads:
            thread.join()
    assert statuses == [200, 200, 200]


def test_the_root_leads_to_the_documentation(client: httpx.Client) -> None:
    answer = client.get("/", follow_redirects=True)
    assert answer.status_code == 200
    assert "swagger" in answer.text


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_names_no_other_machine(client: httpx.Client, page: str) -> None:
    text = client.get(page).text
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)["']""", text)
    assert addresses
    assert all(address.startswith("/") and not address.startswith("//") for address in addresses)
    assert not re.search(r"https?://", text)
    for address in addresses:
        assert client.get(address).status_code == 200


@pytest.mark.browser
@pytest.mark.parametrize(("page", "shown"), [("/docs", "Enrol a person"), ("/redoc", "Enrol a person")])
def test_the_documentation_works_in_a_browser_without_a_network(live_url: str, page: str, shown: str) -> None:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    asked: list[str] = []
    stopped: list[str] = []  # by the page's own policy, before anything was sent

    def failed(request: Request) -> None:
        if request.failure == "csp":
            stopped.append(request.url)

    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        tab = browser.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("requestfailed", failed)
        tab.goto(f"{live_url}{page}")
        tab.get_by_text(shown).first.wait_for(state="attached", timeout=20_000)
        tab.wait_for_load_state("networkidle")
    abroad = [address for address in asked if not address.startswith((live_url, "data:", "blob:"))]
    assert set(abroad) <= set(stopped)
