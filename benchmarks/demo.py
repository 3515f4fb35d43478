"""The demo: starts the service, enrols real photographs through its HTTP API, and shows what it answered."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.demo_photographs import MOST_PEOPLE, NEW, SEEN, UNUSABLE, Photograph, built_in, of_folder
from service.cli.client import Json, ServiceClient, gallery_path
from service.cli.failures import CommandFailed, report_failure
from service.cli.show import chance, coloured, console, percent, plain, score_text, table

_START_S = 120.0  # a slow disk and a cold machine included
_STOP_S = 70.0  # the service finishes accepted requests within 60
_LISTED = 10  # files that the summary names
_LOG = "service.log"
_FLAGGED = frozenset({"REVIEW", "DUPLICATE"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said of one photograph: an enrolment, or a rejection code with its message."""

    photograph: Photograph
    enrolment: Json | None
    code: str = ""
    message: str = ""

    @property
    def outcome(self) -> str:
        return "REJECTED" if self.enrolment is None else str(self.enrolment["outcome"])

    @property
    def is_right(self) -> bool:
        """Whether new people are UNIQUE, known people flagged as who they are, and the rest rejected."""
        if self.photograph.kind == NEW:
            return self.outcome == "UNIQUE"
        if self.enrolment is None or self.photograph.kind == UNUSABLE:
            return self.enrolment is None and self.photograph.kind == UNUSABLE
        candidates = self.enrolment["candidates"]
        is_named = bool(candidates) and candidates[0]["subject_id"] in self.photograph.known_as
        return self.outcome in _FLAGGED and is_named


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit status: 0 all as it should be, 1 not, or the service did not start."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _leave)
    out = console()
    try:
        photographs, left_out = (built_in(), 0) if options.faces is None else of_folder(options.faces)
        folder = Path(os.environ.get("BIODEDUP_VAR_DIR", "var")) / "demo"
        _save(folder, photographs, only_one=options.faces is not None)
        with _service(options.port, folder) as process, ServiceClient(f"http://127.0.0.1:{options.port}") as client:
            if left_out:
                out.print(f"The first {MOST_PEOPLE} people of the folder; {left_out:,} more are left out.")
            gallery_id = _fresh_gallery(client)
            answers = [_enrol(client, gallery_id, photograph) for photograph in photographs]
            _print_table(gallery_id, answers)
            is_right = _print_summary(answers, is_promise=options.faces is None)
            if options.exit:
                return 0 if is_right else 1
            _print_invitation(client.url, gallery_id, folder, photographs)
            process.wait()
            report_failure(CommandFailed(f"the service ended; its log is in {folder / _LOG}", "service_ended"))
            return 1
    except KeyboardInterrupt:
        out.print("Stopped. The record of the demo stays in the var folder; run it again at any time.")
    except (CommandFailed, ValueError, OSError) as error:
        report_failure(error if isinstance(error, CommandFailed) else CommandFailed(str(error), "demo_failed"))
        return 1
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--faces", type=Path, metavar="DIR", help="your photographs: one sub-folder a person")
    parser.add_argument("--port", type=int, default=int(os.environ.get("BIODEDUP_PORT") or 8000))
    parser.add_argument("--exit", action="store_true", help="stop after the table; exit status 1 if it is not right")
    return parser.parse_args(arguments)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # unwinds, so that the service is stopped too


def _save(folder: Path, photographs: list[Photograph], *, only_one: bool) -> None:
    """Write the photographs to try out under the var folder, which git ignores; of your own folder only one."""
    folder.mkdir(parents=True, exist_ok=True)
    for photograph in [_to_try(photographs)] if only_one else photographs:
        (folder / Path(photograph.name).name).write_bytes(photograph.content)


def _to_try(photographs: list[Photograph]) -> Photograph:
    return next((photograph for photograph in photographs if photograph.kind == SEEN), photographs[0])


@contextmanager
def _service(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `biodedup serve` as a child process, ready when the block begins and stopped when it ends."""
    log = folder / _LOG
    environ = os.environ | {"BIODEDUP_VAR_DIR": str(folder.parent), "BIODEDUP_PORT": str(port)}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"], env=environ, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_ready(process, port, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    with ServiceClient(f"http://127.0.0.1:{port}") as client:
        while time.monotonic() < deadline:
            # before the question: another program on this port could answer it
            if process.poll() is not None:
                said = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith("{")]
                message = " ".join(line.strip().removeprefix("error: ") for line in said[-3:])
                advice = f"The whole log is in {log}. Another port: BIODEDUP_PORT=8001 make demo"
                raise CommandFailed(f"the service did not start: {message}", "not_started", advice=advice)
            try:
                if "ready" in client.get("/readyz")["status"]:
                    return
            except CommandFailed:
                time.sleep(0.1)
    raise CommandFailed(f"the service is not ready after {_START_S:.0f} s; its log is in {log}", "not_ready")


def _fresh_gallery(client: ServiceClient) -> str:
    """Make the gallery `demo`, or `demo-2` and so on: an earlier run may hold people that somebody still wants."""
    taken = {item["gallery_id"] for item in client.get("/v1/galleries")["items"]}
    gallery_id, number = "demo", 1
    while gallery_id in taken:
        number += 1
        gallery_id = f"demo-{number}"
    client.post_json("/v1/galleries", {"gallery_id": gallery_id})
    if number > 1:
        console().print(f"The gallery demo is from an earlier run; this run has a new one: {gallery_id}.")
    return gallery_id


def _enrol(client: ServiceClient, gallery_id: str, photograph: Photograph) -> Answer:
    try:
        enrolment = client.post_samples(
            gallery_path(gallery_id, "enrolments"),
            [("sample", photograph.content)],
            {"subject_id": photograph.subject_id},
        )
    except CommandFailed as rejection:
        return Answer(photograph, None, rejection.code, rejection.message)
    return Answer(photograph, enrolment)


def _print_table(gallery_id: str, answers: list[Answer]) -> None:
    out = console()
    out.print("The first photograph of each person is new. The further ones show the same people again (made from the")
    out.print(
        "first by another crop, light, tilt and compression, unless they are yours), sent in under other names, as by"
    )
    out.print("somebody who registers twice.")
    columns = ["photograph", "answer", "because", "score", "threshold", "false match"]
    out.print(table(f"Sent to the gallery {gallery_id}, in this order", columns, [_row(answer) for answer in answers]))
    out.print(
        "score: how alike the two faces are, at most 1. threshold: from this score on a person must look at the pair."
    )
    out.print("false match: chance that two different people are that alike.")


def _row(answer: Answer) -> list[str]:
    start = [plain(answer.photograph.name), coloured(answer.outcome)]
    if answer.enrolment is None:
        return [*start, f"{plain(answer.code)}: {plain(answer.message)}", "-", "-", "-"]
    threshold = score_text(answer.enrolment["thresholds"]["review"])
    if not answer.enrolment["candidates"]:
        compared = answer.enrolment["searched"]["gallery_size"]
        because = f"like none of the {compared} enrolled before" if compared else "nobody was enrolled before"
        return [*start, because, "-", threshold, "-"]
    best = answer.enrolment["candidates"][0]
    return [*start, f"looks like {plain(best['subject_id'])}", score_text(best["score"]), threshold, chance(best)]


def _print_summary(answers: list[Answer], *, is_promise: bool) -> bool:
    """Say how many answers were right. Where `is_promise`, one wrong answer makes the demo fail."""
    out = console()
    words = {
        NEW: "different people are UNIQUE",
        SEEN: "photographs of someone already enrolled were flagged",
        UNUSABLE: "unusable files were rejected",
    }
    for kind, claim in words.items():
        of_kind = [answer for answer in answers if answer.photograph.kind == kind]
        if of_kind:
            out.print(f"{sum(answer.is_right for answer in of_kind)} of {len(of_kind)} {claim}.")
    last = next((answer.enrolment for answer in reversed(answers) if answer.enrolment is not None), None)
    if last is not None:
        thresholds = last["thresholds"]
        out.print(
            f"The threshold lets {percent(thresholds['review_fpir'])} of new people be flagged by mistake; it is "
            f"expected to miss {percent(thresholds['expected_fnir'])} of duplicates "
            f"({plain(thresholds['expected_fnir_population'])})."
        )
    wrong = [answer.photograph.name for answer in answers if not answer.is_right]
    if wrong:
        word = "[red]This is not as it should be[/red]" if is_promise else "Worth a look"
        more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        out.print(f"{word}: {plain(', '.join(wrong[:_LISTED]))}{more}")
    return not (wrong and is_promise)


def _print_invitation(url: str, gallery_id: str, folder: Path, photographs: list[Photograph]) -> None:
    file = folder / Path(_to_try(photographs).name).name
    samples = f"{url}{gallery_path(gallery_id)}"
    out = console()
    out.print("")
    out.print(f"The service keeps running on {url}. Pages to look at:")
    out.print(f"  {url}/docs      try every request in the browser")
    out.print(f"  {url}/readyz    what is loaded and in step")
    out.print(f"  {url}/metrics   numbers for Prometheus")
    out.print("To try in another terminal, in this folder:")
    out.print(f"  curl -F sample=@{file} {samples}/identifications")
    out.print(f"  curl -F sample=@{file} -F subject_id=newcomer {samples}/enrolments")
    out.print(f"  .venv/bin/biodedup stats --url {url}")
    out.print(f"The photographs are in {folder} and nowhere else; git ignores that folder. Stop with Ctrl-C.")
    out.file.flush()


if __name__ == "__main__":
    sys.exit(main())
