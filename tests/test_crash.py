"""kill -9 at any moment: each answered enrolment is in record and index once, and a repeat gets the first answer."""

import itertools
import random
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faces import face_samples
from tests.server import Server

GALLERY = "default"
STREAMS = 3

pytestmark = pytest.mark.models


@dataclass
class Ledger:
    """What the clients sent and what they were answered, by Idempotency-Key."""

    samples: list[bytes]
    answered: dict[str, Any] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def sample(self, key: str) -> bytes:
        return self.samples[int(key.removeprefix("key-")) % len(self.samples)]

    def send(self, client: httpx.Client, key: str) -> Any:
        answer = client.post(
            f"/v1/galleries/{GALLERY}/enrolments",
            files={"sample": ("face.jpg", self.sample(key), "image/jpeg")},
            headers={"Idempotency-Key": key},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    def stream(self, url: str, stop: threading.Event) -> None:
        """Enrol one after the other until told to stop or the service is gone."""
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                key = f"key-{next(self.numbers)}"
                self.unanswered.add(key)
                try:
                    self.answered[key] = self.send(client, key)
                except httpx.TransportError:
                    return
                self.unanswered.discard(key)

    def repeat(self, url: str, rng: random.Random) -> None:
        """Send again what got no answer, and some of what got one: that must get the very same."""
        with httpx.Client(base_url=url, timeout=60) as client:
            for key in sorted(self.unanswered):
                self.answered[key] = self.send(client, key)
            self.unanswered.clear()
            for key in rng.sample(sorted(self.answered), min(5, len(self.answered))):
                assert self.send(client, key) == self.answered[key]


def everything_enrolled(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = httpx.get(
            f"{url}/v1/galleries/{GALLERY}/enrolments", params={"limit": 200, **({"after": after} if after else {})}
        ).json()
        found += page["items"]
        after = page["next_after"]
        if after is None:
            return found


def kill_again_and_again(folder: Path, kills: int, seed: int) -> Ledger:
    rng = random.Random(seed)
    ledger = Ledger(face_samples(40))
    for _ in range(kills):
        server = Server(folder / "var")
        server.wait_until_ready()
        ledger.repeat(server.url, rng)
        stop = threading.Event()
        threads = [threading.Thread(target=ledger.stream, args=(server.url, stop)) for _ in range(STREAMS)]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.05, 1.2))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
    return ledger


def assert_nothing_is_lost_or_doubled(folder: Path, ledger: Ledger) -> None:
    with Server(folder / "var") as server:
        ledger.repeat(server.url, random.Random(0))
        ready = httpx.get(f"{server.url}/readyz").json()["galleries"][0]
        records = everything_enrolled(server.url)
    by_id = {record["enrolment_id"]: record for record in records}
    assert all(by_id[answer["enrolment_id"]] == answer for answer in ledger.answered.values())
    assert len(records) == len(by_id) == len(ledger.answered)
    assert ready["in_step"]
    assert ready["index_templates"] == ready["record_templates"] == len(ledger.answered)


def test_three_kills_lose_nothing(tmp_path: Path) -> None:
    ledger = kill_again_and_again(tmp_path, 3, seed=1)
    assert_nothing_is_lost_or_doubled(tmp_path, ledger)


@pytest.mark.soak
def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    ledger = kill_again_and_again(tmp_path, 50, seed=2)
    assert len(ledger.answered) > 200
    assert_nothing_is_lost_or_doubled(tmp_path, ledger)


def test_each_answer_follows_its_sync_to_disk(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    trace = tmp_path / "trace"
    calls = "trace=read,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync"
    server = Server(tmp_path / "var", prefix=("strace", "-f", "-s", "64", "-o", str(trace), "-e", calls))
    try:
        server.wait_until_ready()
        ledger = Ledger(face_samples(6))
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for number in range(6):
                ledger.send(client, f"key-{number}")
    finally:
        server.kill()
    assert synced_before_answer(trace.read_text(errors="replace")) == [True] * 6


def synced_before_answer(trace: str) -> list[bool]:
    """For each enrolment in a strace, whether a sync ended between its request and its answer."""
    found: list[bool] = []
    synced = False
    for line in trace.splitlines():
        if "POST /v1/galleries" in line:
            synced = False
        elif re.search(r"(fsync|fdatasync)(\(\d+\)| resumed>\)).*= 0", line):
            synced = True
        elif "HTTP/1.1 201" in line:
            found.append(synced)
    return found


def test_the_trace_reader_notices_an_answer_without_a_sync() -> None:
    lines = [
        '7 read(9, "POST /v1/galleries/default/enrol"..., 65536) = 900',
        "7 fdatasync(12 <unfinished ...>",
        '7 write(9, "HTTP/1.1 201 Created"..., 300) = 300',
        "8 <... fdatasync resumed>) = 0",
        '7 read(9, "POST /v1/galleries/default/enrol"..., 65536) = 900',
        "8 fdatasync(12) = 0",
        '7 write(9, "HTTP/1.1 201 Created"..., 300) = 300',
    ]
    assert synced_before_answer("\n".join(lines)) == [False, True]
