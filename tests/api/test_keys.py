"""The master key is rotated while people are enrolled: nothing is lost, and nothing is left under the old key."""

import itertools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.errors import MasterKeyUnusable
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.records import record_of

ENROLLING, ROTATIONS = 4, 6


def test_the_master_key_is_shown_by_its_name(client: httpx.Client, gallery: str) -> None:
    client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"})
    keys = client.get("/v1/keys").json()

    assert keys["gallery_keys"].keys() == {keys["master_key_id"]}
    assert keys["gallery_keys"][keys["master_key_id"]] >= 1


def test_a_rotation_while_enrolling_loses_nothing_and_leaves_nothing_under_the_old_key(tmp_path: Path) -> None:
    var = tmp_path / "var"
    settings = fake_settings(var)
    stop, enrolled = threading.Event(), []

    def enrol(client: httpx.Client, thread: int) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            if number % 5 == 0:  # a gallery that begins just now
                client.post("/v1/galleries", json={"gallery_id": f"g{thread}-{number}"}).raise_for_status()
            name = f"p{thread}-{number}"
            gallery = f"g{thread}-{number - number % 5}"
            answer = client.post(
                f"/v1/galleries/{gallery}/enrolments", files={"sample": f"{name}/1".encode()}, data={"subject_id": name}
            )
            answer.raise_for_status()
            enrolled.append((gallery, name))

    with running(fake_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_until_ready(client)
        old_key = (var / "master.key").read_bytes()
        first = client.get("/v1/keys").json()["master_key_id"]
        with ThreadPoolExecutor(ENROLLING) as pool:
            working = [pool.submit(enrol, client, thread) for thread in range(ENROLLING)]
            answers = [client.post("/v1/keys/rotations") for _ in range(ROTATIONS)]
            stop.set()
            for each in working:
                each.result(timeout=60)
        last = client.post("/v1/keys/rotations").json()
        assert [each.status_code for each in answers] == [200] * ROTATIONS
        galleries = len(client.get("/v1/galleries").json()["items"])
        assert last["gallery_keys"] == {last["master_key_id"]: galleries}
        assert last["master_key_id"] != first
        assert {each.name for each in var.glob("master.key*")} == {"master.key"}

    assert len(enrolled) > ROTATIONS
    with running(fake_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_until_ready(client)
        for gallery, name in enrolled:
            sample = {"sample": f"{name}/2".encode()}
            found = client.post(f"/v1/galleries/{gallery}/identifications", files=sample).json()["candidates"]
            assert [each["subject_id"] for each in found] == [name]

    shutil.copy(var / "master.key", tmp_path / "new.key")
    (var / "master.key").write_bytes(old_key)
    with pytest.raises(MasterKeyUnusable, match="nothing was written"), record_of(var):
        pass
    assert (var / "master.key").read_bytes() == old_key


def test_a_start_with_the_wrong_master_key_says_why_and_never_gets_ready(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "var")
    with running(fake_app(settings)) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        client.post("/v1/galleries/default/enrolments", files={"sample": b"anna/1"}).raise_for_status()
    (tmp_path / "var" / "master.key").unlink()
    app = fake_app(settings)
    with running(app) as url, httpx.Client(base_url=url) as client:
        assert client.get("/readyz").status_code == 503
        app.state.startup._threads.shutdown()
        assert isinstance(app.state.startup.failure, MasterKeyUnusable)
    assert not (tmp_path / "var" / "master.key").exists()
