"""Operators look after the index over HTTP."""

import httpx

from tests.api.conftest import Enrol
from tests.api.test_operations import value


def test_the_status_shows_the_index_beside_its_record(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1")
    enrol(b"ben/1", subject_id="S-1")
    client.delete(f"{gallery}/subjects/S-1")
    body = client.get(f"{gallery}/index").json()
    [part] = body.pop("parts")
    assert (part["state"], part["templates"], part["removed"], part["file_name"]) == ("open", 1, 1, None)
    assert body.pop("ram_bytes") == part["ram_bytes"] > 0
    assert body == {
        "gallery_id": gallery.rpartition("/")[2],
        "pack_id": "fake",
        "standby": None,
        "high_water_mark": 3,
        "last_seq": 3,
        "index_templates": 1,
        "record_templates": 1,
        "in_step": True,
        "miss_bound": 0.0,
        "disk_bytes": 0,
    }


def test_a_verification_counts_what_it_compared(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    before = value(client, "biodedup_index_verifications_total", result="ok")
    enrol(b"anna/1")
    enrol(b"ben/1")
    answer = client.post(f"{gallery}/index/verifications")
    assert answer.status_code == 200
    assert answer.json() == {
        "gallery_id": gallery.rpartition("/")[2],
        "result": "ok",
        "compared": 2,
        "missing": 0,
        "surplus": 0,
        "different": 0,
        "in_step": True,
    }
    assert value(client, "biodedup_index_verifications_total", result="ok") == before + 1


def test_rebuilding_and_compacting_change_no_answer(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="anna")
    enrol(b"ben/1")
    for what in ("rebuilds", "compactions"):
        answer = client.post(f"{gallery}/index/{what}")
        assert (answer.status_code, answer.json()["in_step"], answer.json()["index_templates"]) == (200, True, 2)
        found = client.post(f"{gallery}/identifications", files={"sample": b"anna/2"}).json()
        assert [each["subject_id"] for each in found["candidates"]] == ["anna"]


def test_a_gallery_that_is_not_there_has_no_index(client: httpx.Client) -> None:
    for method, path in (
        ("GET", ""),
        ("POST", "/verifications"),
        ("POST", "/rebuilds"),
        ("POST", "/compactions"),
    ):
        answer = client.request(method, f"/v1/galleries/none/index{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "gallery_not_found")


def test_the_gauges_show_the_parts(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1")
    name = gallery.rpartition("/")[2]
    assert value(client, "biodedup_index_templates", gallery=name, state="open") == 1
    assert value(client, "biodedup_index_bytes", gallery=name, place="ram") > 0
    before = value(client, "biodedup_index_search_seconds_count", phase="open")
    client.post(f"{gallery}/identifications", files={"sample": b"anna/2"})
    assert value(client, "biodedup_index_search_seconds_count", phase="open") > before
