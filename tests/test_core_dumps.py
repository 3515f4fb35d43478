"""Neither the service nor a worker of it leaves a copy of its memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for child in (task / "children").read_text().split()
    ]


def core_limit(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4:6] for line in lines if line.startswith("Max core file size"))


@pytest.mark.models
def test_the_service_and_its_workers_may_leave_no_core(tmp_path: Path, models_dir: Path) -> None:
    unlimited = ("prlimit", "--core=unlimited")
    with Server(tmp_path / "var", {"BIODEDUP_MODELS_DIR": str(models_dir)}, prefix=unlimited) as server:
        processes = [server.process.pid, *children_of(server.process.pid)]
        limits = {pid: core_limit(pid) for pid in processes}

    assert len(limits) > 1
    assert set(map(tuple, limits.values())) == {("0", "0")}


def test_a_process_that_forbids_it_cannot_be_dumped() -> None:
    code = (
        "import ctypes; from service.core_dumps import forbid_core_dumps as forbid; get = ctypes.CDLL(None).prctl;"
        "before = get(3, 0, 0, 0, 0); forbid(); print(before, get(3, 0, 0, 0, 0))"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)

    assert said.stdout.split() == ["1", "0"]
