"""A registration site under load: `locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000`.

Each user enrols people, sends some requests twice as a bad network would, searches, and verifies who was enrolled. The
photographs are re-captures of the people that the installed packages show, so most enrolments are flagged: that is the
slower path. BIODEDUP_API_KEY has the key of an enroller. Add `--headless -u 8 -t 60s` for a run without the web page.
Only point it at a service of your own.
"""

import io
import itertools
import os
import uuid

from locust import HttpUser, constant_throughput, task
from PIL import Image

from benchmarks.demo_photographs import NEW, built_in
from benchmarks.recapture import recapture

GALLERY = os.environ.get("BIODEDUP_TEST_GALLERY", "default")
_PEOPLE = [Image.open(io.BytesIO(photograph.content)) for photograph in built_in() if photograph.kind == NEW]
_SAMPLES = [recapture(_PEOPLE[number % len(_PEOPLE)], seed=number) for number in range(70)]
_numbers = itertools.count()


class RegistrationDesk(HttpUser):
    """One desk: a request every two seconds, as fast as a person works."""

    wait_time = constant_throughput(0.5)

    def on_start(self) -> None:
        self.enrolled: list[str] = []
        if "BIODEDUP_API_KEY" in os.environ:
            self.client.headers["Authorization"] = f"Bearer {os.environ['BIODEDUP_API_KEY']}"
        self.enrol()  # the first who came; only who is enrolled can be verified

    @task(6)
    def enrol(self) -> None:
        """A new person, now and then sent twice."""
        key = uuid.uuid4().hex
        sample = _SAMPLES[next(_numbers) % len(_SAMPLES)]
        answers = [self._enrol(key, sample) for _ in range(2 if next(_numbers) % 10 == 0 else 1)]
        self.enrolled += [subject_id for subject_id in answers[:1] if subject_id]

    @task(3)
    def identify(self) -> None:
        """Who is this?"""
        files = {"sample": ("face.jpg", _SAMPLES[next(_numbers) % len(_SAMPLES)], "image/jpeg")}
        self.client.post(f"/v1/galleries/{GALLERY}/identifications", files=files, name="identify")

    @task(3)
    def verify(self) -> None:
        """At distribution: is this the person?"""
        if not self.enrolled:
            return
        files = {"sample": ("face.jpg", _SAMPLES[next(_numbers) % len(_SAMPLES)], "image/jpeg")}
        data = {"subject_id": self.enrolled[next(_numbers) % len(self.enrolled)]}
        self.client.post(f"/v1/galleries/{GALLERY}/verifications", files=files, data=data, name="verify")

    @task(1)
    def watch(self) -> None:
        """The load balancer."""
        self.client.get("/readyz")

    def _enrol(self, key: str, sample: bytes) -> str | None:
        files = {"sample": ("face.jpg", sample, "image/jpeg")}
        headers = {"Idempotency-Key": key}
        with self.client.post(
            f"/v1/galleries/{GALLERY}/enrolments", files=files, headers=headers, name="enrol", catch_response=True
        ) as answer:
            if answer.status_code == 429:
                answer.success()  # the service says come back later: that is its right, and counted by its metrics
                return None
            if answer.status_code != 201:
                answer.failure(f"status {answer.status_code}")
                return None
            subject_id: str = answer.json()["subject_id"]
            return subject_id
