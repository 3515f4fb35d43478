"""The demo: starts the service, enrols real photographs through its HTTP API, and shows what it answered."""

import argparse
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.demo_key import demo_key
from benchmarks.demo_photographs import (
    MOST_OTHERS,
    MOST_PEOPLE,
    NEW,
    SEEN,
    UNUSABLE,
    Photograph,
    Selection,
    built_in,
    of_folder,
)
from benchmarks.demo_service import LOG, refuse_taken, running_service
from service.cli.client import Json, ServiceClient, gallery_path
from service.cli.failures import CommandFailed, report_failure
from service.cli.show import chance, coloured, console, plain, score_text, table
from service.decision import percent
from service.errors import BiodedupError
from service.var_lock import make_var_folder

_LISTED = 10  # files that the summary names
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
    os.umask(0o077)  # photographs and their log are for their owner only
    out = console()
    try:
        selection = Selection(built_in()) if options.faces is None else of_folder(options.faces)
        photographs = selection.photographs
        var_dir = Path(os.environ.get("BIODEDUP_VAR_DIR", "var"))
        folder = var_dir / "demo"
        refuse_taken(options.port, var_dir)
        make_var_folder(var_dir)
        _save(folder, photographs, only_one=options.faces is not None)
        with running_service(options.port, folder) as child:
            key_file = demo_key(child.url, folder, child.first_key)
            _print_left_out(selection)
            with ServiceClient(child.url, key="" if key_file is None else key_file.read_text().strip()) as client:
                gallery_id = _fresh_gallery(client)
                answers = [_enrol(client, gallery_id, photograph) for photograph in photographs]
            _print_table(gallery_id, answers)
            is_right = _print_summary(answers, is_promise=options.faces is None)
            if options.exit:
                return 0 if is_right else 1
            file = folder / Path(_to_try(photographs).name).name
            _print_invitation(child.url, gallery_id, file, key_file, is_own=options.faces is not None)
            child.process.wait()
            report_failure(CommandFailed(f"the service ended; its log is in {folder / LOG}", "service_ended"))
            return 1
    except KeyboardInterrupt:
        out.print("Stopped. The record of the demo stays in the var folder; run it again at any time.")
    except (CommandFailed, BiodedupError) as error:
        report_failure(error)
        return 1
    except (ValueError, OSError) as error:
        report_failure(CommandFailed(str(error), "demo_failed"))
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
    columns = ["photograph", "answer", "because", "score", "threshold", "chance if they are\ndifferent people"]
    out.print(table(f"Sent to the gallery {gallery_id}, in this order", columns, [_row(answer) for answer in answers]))
    out.print(
        "score: how alike the two faces are, at most 1. threshold: from this score on a person must look at the pair."
    )
    out.print("chance if they are different people: how rarely two different people are that alike.")


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


def _print_left_out(selection: Selection) -> None:
    out = console()
    if selection.people_left_out:
        out.print(f"The first {MOST_PEOPLE} people of the folder; {selection.people_left_out:,} more are left out.")
    if selection.files_left_out:
        most = 1 + MOST_OTHERS
        out.print(f"At most {most} photographs of a person; {selection.files_left_out:,} more are left out.")
    if selection.files_beside:
        out.print(f"Files beside the sub-folders are left out ({selection.files_beside:,}): whose are they?")


def _print_invitation(url: str, gallery_id: str, file: Path, key_file: Path | None, *, is_own: bool) -> None:
    samples = f"{url}{gallery_path(gallery_id)}"
    out = console()
    out.print("")
    out.print(f"The service keeps running on {url}. Pages to look at:")
    out.print(f"  {url}/docs      try every request in the browser")
    out.print(f"  {url}/readyz    what is loaded and in step")
    out.print("To try in another terminal, in this folder:")
    curl = "curl"
    if key_file is not None:
        out.print(f"  export BIODEDUP_API_KEY=$(cat {key_file})")
        curl = 'curl -H "Authorization: Bearer $BIODEDUP_API_KEY"'
    out.print(f"  {curl} -F sample=@{file} {samples}/identifications")
    out.print(f"  {curl} -F sample=@{file} -F subject_id=newcomer {samples}/enrolments")
    out.print(f"  .venv/bin/biodedup stats --url {url}")
    if is_own:
        out.print(f"A copy of one of your photographs, {file}, is there to try this; delete it when you are done.")
    else:
        out.print(f"The photographs of the demo are in {file.parent}.")
    if key_file is not None:
        out.print(f"The key in {key_file} may do everything with the record in {key_file.parent.parent}: keep it so.")
    out.print("Stop with Ctrl-C.")
    out.file.flush()


if __name__ == "__main__":
    sys.exit(main())
