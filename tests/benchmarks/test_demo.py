"""The demo shows a stranger what the service does, and fails where it does not."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.demo import Answer
from benchmarks.demo_photographs import MOST_PEOPLE, NEW, SEEN, UNUSABLE, Photograph, of_folder
from benchmarks.demo_service import running_service
from benchmarks.recapture import recapture
from service.cli.client import Json
from service.cli.failures import CommandFailed
from tests.faces import face_of, to_jpeg
from tests.server import Server, free_port


def demo(tmp_path: Path, models_dir: Path, *arguments: str, port: int | None = None) -> "subprocess.Popen[str]":
    names = {"BIODEDUP_VAR_DIR": str(tmp_path / "var"), "BIODEDUP_MODELS_DIR": str(models_dir)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BIODEDUP_")}
    command = [sys.executable, "-m", "benchmarks.demo", "--port", str(port or free_port()), *arguments]
    return subprocess.Popen(command, env=kept | names, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.models
def test_every_recapture_is_flagged_and_none_of_the_different_people_also_the_second_time(
    models_dir: Path, tmp_path: Path
) -> None:
    for gallery in ("demo", "demo-2"):
        with demo(tmp_path, models_dir, "--exit") as process:
            said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, said + errors
        assert f"Sent to the gallery {gallery}, in this order" in said
        for claim in ("7 of 7 different people", "7 of 7 photographs of someone", "4 of 4 unusable"):
            assert claim in said


@pytest.mark.models
def test_it_keeps_serving_and_its_curl_works_as_printed(models_dir: Path, tmp_path: Path) -> None:
    with demo(tmp_path, models_dir) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "Stop with Ctrl-C" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr
        (export,) = [line.strip() for line in lines if line.strip().startswith("export ")]
        key = (tmp_path / "var" / "demo" / "key").read_text().strip()
        assert export == f"export BIODEDUP_API_KEY=$(cat {tmp_path / 'var' / 'demo' / 'key'})"
        curls = [
            shlex.split(line.replace("$BIODEDUP_API_KEY", key)) for line in lines if line.strip().startswith("curl ")
        ]
        answers = [as_request(curl) for curl in curls]
        strangers = httpx.get(f"{answers[0].request.url.copy_with(path='/v1/galleries')}")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
    assert [answer.status_code for answer in answers] == [200, 201]
    assert answers[0].json()["found"] is True
    assert answers[1].json()["outcome"] in {"REVIEW", "DUPLICATE"}
    assert strangers.status_code == 401
    assert (tmp_path / "var" / "demo" / "key").stat().st_mode & 0o777 == 0o600
    assert "bdk_" not in (tmp_path / "var" / "demo" / "service.log").read_text() + "".join(lines)
    assert process.returncode == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(str(answers[0].request.url))


def as_request(curl: list[str]) -> httpx.Response:
    """Do what `curl -H name:value -F name=value ... URL` does."""
    assert curl[:2] == ["curl", "-H"]
    assert set(curl[3:-1:2]) == {"-F"}
    header, fields = curl[2].split(": ", 1), dict(field.split("=", 1) for field in curl[4:-1:2])
    file = Path(fields.pop("sample").removeprefix("@"))
    return httpx.post(
        curl[-1], files={"sample": file.read_bytes()}, data=fields, headers=[(header[0], header[1])], timeout=60
    )


@pytest.mark.models
def test_a_folder_of_ones_own_is_taken(models_dir: Path, tmp_path: Path) -> None:
    for person, name in enumerate(("Ada L.", "bob")):
        folder = tmp_path / "faces" / name
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(to_jpeg(face_of(person)))
        for number in (2, 3):
            (folder / f"{number}.jpg").write_bytes(recapture(face_of(person), seed=10 * person + number))
    (tmp_path / "faces" / "beside.jpg").write_bytes(b"x")
    with demo(tmp_path, models_dir, "--exit", "--faces", str(tmp_path / "faces")) as process:
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, said + errors
    assert "2 of 2 different people" in said
    assert "4 of 4 photographs of someone" in said
    assert "Files beside the sub-folders are left out (1)" in said
    assert re.search(r"Ada L\./2\.jpg +│ DUPLICATE │ looks like Ada-L\.", said)
    assert sorted(path.name for path in (tmp_path / "var" / "demo").iterdir()) == ["2.jpg", "key", "service.log"]


@pytest.mark.models
def test_it_leaves_a_service_alone_that_already_runs_on_the_port(models_dir: Path, tmp_path: Path) -> None:
    with Server(tmp_path / "stranger", {"BIODEDUP_MODELS_DIR": str(models_dir)}) as stranger:
        with demo(tmp_path, models_dir, "--exit", port=stranger.port) as process:
            said, errors = process.communicate(timeout=60)
        galleries = httpx.get(f"{stranger.url}/v1/galleries").json()["items"]
    assert process.returncode == 1
    line, advice = errors.splitlines()
    assert line == f"error: something already answers on port {stranger.port} (address_unusable)"
    assert "BIODEDUP_PORT=8001 make demo" in advice
    assert said == ""
    assert [gallery["gallery_id"] for gallery in galleries] == ["default"]
    assert not (tmp_path / "var").exists()


@pytest.mark.models
def test_what_answers_on_the_port_while_the_child_cannot_have_it_is_not_taken_for_it(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))
    with Server(tmp_path / "stranger", {"BIODEDUP_MODELS_DIR": str(models_dir)}) as stranger:
        (tmp_path / "var" / "demo").mkdir(parents=True)
        log = tmp_path / "var" / "demo" / "service.log"
        log.write_text(f"biodedup listens on {stranger.url}  (an earlier run)\n")
        with pytest.raises(CommandFailed) as failure, running_service(stranger.port, tmp_path / "var" / "demo"):
            pytest.fail("the stranger was taken for the child")
    assert failure.value.code == "address_unusable"
    assert "BIODEDUP_PORT=8001 make demo" in str(failure.value.advice)
    assert log.read_text().startswith("biodedup listens on")


@pytest.mark.models
def test_a_folder_in_use_is_said_with_the_advice_that_helps(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "var" / "demo").mkdir(parents=True)
    (tmp_path / "var" / "demo" / "service.log").write_text("of the running demo")
    with (
        Server(tmp_path / "var", {"BIODEDUP_MODELS_DIR": str(models_dir)}) as owner,
        demo(tmp_path, models_dir, "--exit") as process,
    ):
        _, errors = process.communicate(timeout=60)
    line, advice = errors.splitlines()
    assert process.returncode == 1
    assert line.startswith(f"error: process {owner.process.pid} serves this folder at {owner.url}")
    assert line.endswith(" (var_in_use)")
    assert "BIODEDUP_PORT" not in advice
    assert (tmp_path / "var" / "demo" / "service.log").read_text() == "of the running demo"
    assert [path.name for path in (tmp_path / "var" / "demo").iterdir()] == ["service.log"]


def test_a_start_that_fails_is_told_in_the_words_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIODEDUP_PACK", "no-such-pack")
    (tmp_path / "demo").mkdir()
    with pytest.raises(CommandFailed) as failure, running_service(free_port(), tmp_path / "demo"):
        pytest.fail("it started")
    assert failure.value.code == "pack_unknown"
    assert failure.value.message.startswith("the service did not start: ")
    assert "listens on" not in failure.value.message
    assert "BIODEDUP_PORT" not in str(failure.value.advice)
    assert str(tmp_path / "demo" / "service.log") in str(failure.value.advice)


def test_what_a_folder_holds_beyond_the_demo_is_counted(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg", "a/5.jpg", "beside.jpg", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for number in range(MOST_PEOPLE):
        (tmp_path / f"b{number}").mkdir()
        (tmp_path / f"b{number}" / "1.jpg").write_bytes(b"x")
    selection = of_folder(tmp_path)
    assert len(selection.photographs) == 4 + MOST_PEOPLE - 1
    assert (selection.people_left_out, selection.files_left_out, selection.files_beside) == (1, 1, 1)


def test_a_folder_without_people_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="one sub-folder a person"):
        of_folder(tmp_path)


@pytest.mark.parametrize(
    ("kind", "outcome", "named", "is_right"),
    [
        (NEW, "UNIQUE", None, True),
        (NEW, "REVIEW", "other", False),
        (NEW, None, None, False),
        (SEEN, "REVIEW", "ada", True),
        (SEEN, "DUPLICATE", "ada", True),
        (SEEN, "DUPLICATE", "ada-again-1", True),
        (SEEN, "DUPLICATE", "other", False),
        (SEEN, "UNIQUE", None, False),
        (SEEN, None, None, False),
        (UNUSABLE, None, None, True),
        (UNUSABLE, "UNIQUE", None, False),
    ],
)
def test_an_answer_is_right_only_where_the_right_person_is_named(
    kind: str, outcome: str | None, named: str | None, is_right: bool
) -> None:
    photograph = Photograph("a.jpg", "visitor", kind, b"", ("ada", "ada-again-1"))
    candidates = [] if named is None else [{"subject_id": named}]
    enrolment: Json | None = None if outcome is None else {"outcome": outcome, "candidates": candidates}
    assert Answer(photograph, enrolment).is_right is is_right
