"""What is installed is pinned, the Makefile explains itself, and CI fails on a skipped test."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def pins(lock: str) -> dict[str, str]:
    """`name==version` lines of a lock file."""
    return dict(re.findall(r"^([\w.\-\[\]]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def check_skips(tmp_path: Path, cases: str) -> subprocess.CompletedProcess[str]:
    report = tmp_path / "tests.xml"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    command = [sys.executable, str(ROOT / ".ci" / "skips.py"), str(report)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_package_is_pinned_by_digest(lock: str) -> None:
    blocks = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    assert len(blocks) > 50
    assert [block for block in blocks if not re.match(r"\S+==\S+.*(\n    --hash=sha256:[0-9a-f]{64})", block)] == []


def test_tests_run_with_the_versions_that_are_served() -> None:
    assert pins("requirements.lock").items() - pins("requirements-dev.lock").items() == set()


def test_opencv_is_the_build_that_needs_no_system_library() -> None:
    assert "opencv-python-headless" in pins("requirements.lock")
    for lock in ("requirements.lock", "requirements-dev.lock"):
        full_build = re.findall(r"^opencv-python==.*", (ROOT / lock).read_text(), re.MULTILINE)
        assert [line for line in full_build if "sys_platform == 'never'" not in line] == []


def test_what_builds_the_project_is_locked() -> None:
    assert "setuptools" in pins("requirements.lock")


@needs_make
def test_make_help_lists_every_target_for_people() -> None:
    shown = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "serve", "test", "bench", "soak", "models", "lock", "clean", "help"):
        assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE)


@needs_make
def test_an_old_python_is_refused_with_advice() -> None:
    command = ["make", "-C", str(ROOT), "-B", ".venv/.installed-runtime", "PYTHON="]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "Python 3.11 or newer is needed" in refused.stdout


@needs_make
@pytest.mark.parametrize(("folder", "installs"), [("here", False), ("renamed", True)])
def test_a_checkout_that_was_renamed_is_installed_again(tmp_path: Path, folder: str, installs: bool) -> None:
    binaries = tmp_path / "here" / ".venv" / "bin"
    (tmp_path / "here" / "deploy").mkdir(parents=True)
    binaries.mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock", "deploy/install.py"):
        shutil.copy(ROOT / name, tmp_path / "here" / name)
    (binaries / "biodedup").write_text(f"#!{binaries.resolve()}/python\n")
    for stamp in (".installed-runtime", ".installed-dev"):
        (binaries.parent / stamp).write_text("")
    (tmp_path / "here").rename(tmp_path / folder)
    for target in ("serve", "test"):
        plan = subprocess.run(["make", "-n", target], cwd=tmp_path / folder, capture_output=True, text=True, check=True)
        assert ("deploy/install.py" in plan.stdout) is installs
        assert "-m service" in plan.stdout


@needs_make
def test_the_makefile_calls_no_script_that_names_its_folder() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipes = [line for line in makefile.splitlines() if line.startswith("\t")]
    assert {name for line in recipes for name in re.findall(r"\$\(BIN\)/(\S+)", line)} == {"python"}


def test_a_skipped_test_fails_the_gate(tmp_path: Path) -> None:
    checked = check_skips(
        tmp_path,
        '<testcase classname="a" name="ran"/>'
        '<testcase classname="a" name="not_run"><skipped message="needs Chromium"/></testcase>',
    )
    assert checked.returncode == 1
    assert "a::not_run: needs Chromium" in checked.stderr


def test_a_full_run_passes_the_gate(tmp_path: Path) -> None:
    assert check_skips(tmp_path, '<testcase classname="a" name="ran"/>').returncode == 0


def test_a_run_of_no_test_fails_the_gate(tmp_path: Path) -> None:
    assert check_skips(tmp_path, "").returncode == 1
