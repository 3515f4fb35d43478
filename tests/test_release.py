"""The bill of materials names everything that is shipped, and a release with one changed byte is refused."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

REPOSITORY = Path(__file__).parent.parent
RELEASE, SBOM = REPOSITORY / "deploy" / "release.py", REPOSITORY / "deploy" / "sbom.py"


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in command], cwd=cwd, check=False, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def sbom(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    done = run(sys.executable, SBOM, out)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_the_bill_of_materials_has_the_form_of_cyclonedx(sbom: dict[str, Any]) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(sbom)) is None
    assert sbom["metadata"]["component"]["name"] == "biodedup"


def test_it_names_every_locked_package_with_its_digests(sbom: dict[str, Any]) -> None:
    locked = set(
        re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", (REPOSITORY / "requirements.lock").read_text(), re.M)
    )
    named = {each["name"]: each for each in sbom["components"] if each["type"] == "library"}
    assert locked <= named.keys()
    assert all(_digests(each) for each in named.values())


def _digests(component: dict[str, Any]) -> list[str]:
    given = [*component.get("hashes", [])]
    for reference in component.get("externalReferences", []):
        given += reference.get("hashes", [])
    return [each["content"] for each in given]


def test_it_names_every_model_file_with_its_digest(sbom: dict[str, Any]) -> None:
    models = {each["bom-ref"]: each for each in sbom["components"] if each["type"] == "machine-learning-model"}
    wanted = {}
    for path in (REPOSITORY / "models").glob("*/manifest.toml"):
        manifest = tomllib.loads(path.read_text())
        for role in ("detector", "recogniser", "presentation_attack"):
            if role in manifest:
                wanted[f"model:{manifest['pack_id']}/{manifest[role]['file']}"] = manifest[role]["sha256"]
    assert len(wanted) >= 5
    assert {reference: _digests(each)[0] for reference, each in models.items()} == wanted


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "release"
    assert run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).returncode == 0
    kind, public = path.with_suffix(".pub").read_text().split()[:2]
    path.with_name("signers").write_text(f"release {kind} {public}\n")
    return path


@pytest.fixture
def release(tmp_path: Path, key: Path) -> Path:
    """A signed folder."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "biodedup.whl").write_bytes(b"a wheel")
    (folder / "sbom.cdx.json").write_bytes(b"{}")
    done = run(sys.executable, RELEASE, "sign", "--key", key, folder)
    assert done.returncode == 0, done.stderr
    return folder


def verified(folder: Path, signers: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, RELEASE, "verify", "--signers", signers, folder)


def test_a_release_as_it_was_signed_verifies(release: Path, key: Path) -> None:
    done = verified(release, key.with_name("signers"))
    assert done.returncode == 0, done.stderr
    assert "2 files are what was signed" in done.stdout


@pytest.mark.parametrize("name", ["biodedup.whl", "sbom.cdx.json", "SHA256SUMS", "SHA256SUMS.sig"])
def test_one_changed_byte_is_found(release: Path, key: Path, name: str) -> None:
    content = bytearray((release / name).read_bytes())
    content[len(content) // 2] ^= 1
    (release / name).write_bytes(content)
    done = verified(release, key.with_name("signers"))
    assert done.returncode == 1
    assert "do not use this release" in done.stderr


def test_a_file_that_is_missing_or_was_added_is_found(release: Path, key: Path) -> None:
    (release / "added.whl").write_bytes(b"another")
    assert "added.whl" in verified(release, key.with_name("signers")).stderr
    (release / "added.whl").unlink()
    (release / "biodedup.whl").unlink()
    assert "biodedup.whl" in verified(release, key.with_name("signers")).stderr


def test_the_key_of_somebody_else_does_not_verify(release: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other)
    assert run(sys.executable, RELEASE, "sign", "--key", other, release).returncode == 0
    signers = tmp_path / "signers"
    mine = tmp_path / "mine"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", mine)
    signers.write_text("release " + " ".join(mine.with_suffix(".pub").read_text().split()[:2]) + "\n")
    assert verified(release, signers).returncode == 1


def test_a_release_is_made_of_a_commit_and_the_same_commit_makes_the_same(tmp_path: Path, key: Path) -> None:
    copy = tmp_path / "repository"
    copy.mkdir()
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).stdout.split(
        "\0"
    )
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    me = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for command in (("init", "-q"), ("add", "-A"), (*me, "commit", "-q", "-m", "all")):
        assert run("git", *command, cwd=copy).returncode == 0
    script = copy / "deploy" / "release.py"
    (copy / "stray.txt").write_text("not committed")
    refused = run(sys.executable, script, "make", "--key", key, "--out", tmp_path / "one")
    assert refused.returncode == 1
    assert "not committed" in refused.stderr
    (copy / "stray.txt").unlink()
    for out in ("one", "two"):
        made = run(sys.executable, script, "make", "--key", key, "--out", tmp_path / out)
        assert made.returncode == 0, made.stderr
        assert verified(tmp_path / out, key.with_name("signers")).returncode == 0
    assert sorted(path.suffix for path in (tmp_path / "one").iterdir()) == ["", ".gz", ".json", ".sig", ".whl"]
    wheel = next((tmp_path / "one").glob("*.whl"))
    assert wheel.read_bytes() == (tmp_path / "two" / wheel.name).read_bytes()
