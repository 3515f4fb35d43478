"""Model packs on this machine: list them, fetch and repair one, and check that an installed one is what it was."""

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from service.errors import (
    ModelPackError,
    PackDigestMismatch,
    PackDownloadFailed,
    PackGraphUnsupported,
    PackLicenceNotAccepted,
    PackManifestInvalid,
    PackNotInstalled,
)
from service.face.graph_comparison import ORT_REFUSALS
from service.face.graph_repairs import RepairedGraph, accept_pixels, input_name, repair_detector, repair_recogniser
from service.face.pack_fetch import Progress, check_digest, published_files, staging_folder
from service.face.pack_manifest import InsightfaceSource, Licence, Manifest, load_manifest, pack_ids
from service.face.pack_record import RECORD_FILE, attack_model_path, check_files, make_record, model_id, read_record

__all__ = [
    "InstalledPack",
    "Licence",
    "Manifest",
    "PackStatus",
    "fetch_pack",
    "installed_pack",
    "list_packs",
    "load_manifest",
    "verify_pack",
]

_ABANDONED_AFTER_S = 3600  # a staging folder this old belongs to a fetch that was killed


@dataclass(frozen=True)
class InstalledPack:
    """A pack whose files were checked."""

    manifest: Manifest
    detector_path: Path
    recogniser_path: Path
    model_id: str  # the pack and what its numbers depend on: templates of different model ids are never compared
    attack_model_path: Path | None = None  # of the liveness model, where its file was laid beside them


@dataclass(frozen=True)
class PackStatus:
    """One line of `biodedup models list`."""

    pack_id: str
    title: str
    dimension: int
    licence: str
    restricted: bool
    installed: bool
    problem: str | None


@dataclass(frozen=True)
class _Published:
    """Detector and recogniser: the files as published, and as graphs that take our preprocessing."""

    manifest: Manifest
    files: tuple[bytes, bytes]
    graphs: tuple[bytes, bytes]


@dataclass(frozen=True)
class _InsightfaceModel:
    content: bytes
    mean: float
    scale: float


def list_packs(models_dir: Path) -> list[PackStatus]:
    """Return every pack that has a manifest, by name, with what is wrong with it if something is."""
    return [_status(models_dir, pack_id) for pack_id in pack_ids(models_dir)]


def fetch_pack(
    models_dir: Path,
    pack_id: str,
    *,
    accepted_licences: frozenset[str],
    from_folder: Path | None = None,
    progress: Progress | None = None,
) -> InstalledPack:
    """Install a pack: get its published files, check, repair and compare them, and move them into place together.

    A pack that is installed and intact is left as it is. After a failure nothing of the attempt is left.

    Args:
        models_dir: the folder of packs.
        pack_id: name of the pack's folder.
        accepted_licences: packs whose restricted licence the operator acknowledges.
        from_folder: the wheel, its files or InsightFace's own folder; then nothing is downloaded.
        progress: called with the stage, bytes done and bytes in all.

    Raises:
        PackUnknown, PackManifestInvalid, PackLicenceNotAccepted, PackDownloadFailed, PackDigestMismatch,
        PackArchiveUnsafe, PackGraphUnsupported
    """
    manifest = load_manifest(models_dir, pack_id)
    _require_licence(manifest, accepted_licences)
    report = progress or _silent
    try:
        return verify_pack(models_dir, pack_id)
    except (PackNotInstalled, PackDigestMismatch):
        _remove_abandoned(models_dir, pack_id)
    try:
        with staging_folder(models_dir, pack_id) as staging:
            published = _published(manifest, Path(staging), from_folder, report)
            ready = Path(staging) / "ready"
            ready.mkdir()
            _write_repaired(published, ready, report)
            _move_into_place(published.manifest, ready, models_dir / pack_id)
    except OSError as error:
        raise PackDownloadFailed(f"{pack_id} could not be written to the model folder: {error.strerror}") from error
    return verify_pack(models_dir, pack_id)


def verify_pack(models_dir: Path, pack_id: str) -> InstalledPack:
    """Return the pack after hashing every file of it again.

    Raises:
        PackUnknown, PackManifestInvalid
        PackNotInstalled: never fetched, or fetched for another manifest or by another version of the repairs.
        PackDigestMismatch: a file has changed since it was installed, or the liveness model is another one.
    """
    manifest = load_manifest(models_dir, pack_id)
    folder = models_dir / pack_id
    record = read_record(folder, manifest)
    check_files(folder, manifest, record)
    update = {"input_name": record.input_name, "mean": record.mean, "scale": record.scale}
    manifest = manifest.model_copy(update={"recogniser": manifest.recogniser.model_copy(update=update)})
    return InstalledPack(
        manifest,
        folder / manifest.detector.file,
        folder / manifest.recogniser.file,
        model_id(manifest, record),
        attack_model_path(folder, manifest),
    )


def installed_pack(models_dir: Path, pack_id: str, *, accepted_licences: frozenset[str]) -> InstalledPack:
    """Return a pack that may be used: licence acknowledged where that is needed, files intact.

    Raises:
        PackLicenceNotAccepted, and what `verify_pack` raises.
    """
    _require_licence(load_manifest(models_dir, pack_id), accepted_licences)
    return verify_pack(models_dir, pack_id)


def _status(models_dir: Path, pack_id: str) -> PackStatus:
    try:
        manifest = load_manifest(models_dir, pack_id)
    except ModelPackError as error:
        return PackStatus(pack_id, pack_id, 0, "unknown", restricted=True, installed=False, problem=error.message)
    installed, problem = True, None
    try:
        verify_pack(models_dir, pack_id)
    except ModelPackError as error:
        installed = False
        # A pack that was never fetched is no problem; one that was and is broken is.
        problem = error.message if (models_dir / pack_id / RECORD_FILE).exists() else None
    licence = manifest.licence
    return PackStatus(pack_id, manifest.title, manifest.dimension, licence.name, licence.restricted, installed, problem)


def _require_licence(manifest: Manifest, accepted_licences: frozenset[str]) -> None:
    if manifest.licence.restricted and manifest.pack_id not in accepted_licences:
        raise PackLicenceNotAccepted(
            f"{manifest.pack_id}: {manifest.licence.plain_words} ({manifest.licence.link}) "
            f"To acknowledge this, set BIODEDUP_ACCEPTED_LICENCES={manifest.pack_id}"
        )


def _published(manifest: Manifest, staging: Path, from_folder: Path | None, progress: Progress) -> _Published:
    if isinstance(manifest.source, InsightfaceSource):
        if from_folder is None:
            raise PackDownloadFailed(
                f"{manifest.pack_id} is brought by you: name its folder with --from (insightface keeps the packs "
                "that it downloads in ~/.insightface/models)"
            )
        progress("reading the folder with insightface", 0, 1)
        return _from_insightface(manifest, from_folder)
    detector, recogniser = published_files(manifest, staging, from_folder, progress)
    return _Published(manifest, (detector, recogniser), (detector, recogniser))


def _write_repaired(published: _Published, ready: Path, progress: Progress) -> None:
    manifest = published.manifest
    progress(f"repairing {manifest.detector.file}", 0, 2)
    detector = repair_detector(published.graphs[0], mean=manifest.detector.mean, scale=manifest.detector.scale)
    progress(f"repairing {manifest.recogniser.file}", 1, 2)
    entry = manifest.recogniser
    recogniser = repair_recogniser(published.graphs[1], input_size=entry.input_size, mean=entry.mean, scale=entry.scale)
    _check_recogniser(manifest, recogniser)
    record = make_record(manifest, published.files, (detector, recogniser))
    (ready / manifest.detector.file).write_bytes(detector.content)
    (ready / entry.file).write_bytes(recogniser.content)
    (ready / RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    progress("repaired and compared", 2, 2)


def _check_recogniser(manifest: Manifest, graph: RepairedGraph) -> None:
    shapes = list(graph.output_shapes.values())
    if shapes != [(1, manifest.dimension)]:
        raise PackGraphUnsupported(f"The recogniser gives {shapes} instead of one embedding of {manifest.dimension}.")
    if graph.input_name != manifest.recogniser.input_name:
        raise PackGraphUnsupported(
            f"The recogniser's input is {graph.input_name!r}, the manifest says {manifest.recogniser.input_name!r}."
        )


def _move_into_place(manifest: Manifest, ready: Path, folder: Path) -> None:
    # The record comes last: until it is there, or if it does not fit the files, the pack counts as not installed.
    for name in (manifest.detector.file, manifest.recogniser.file, RECORD_FILE):
        (ready / name).replace(folder / name)


def _from_insightface(manifest: Manifest, folder: Path) -> _Published:
    """Read a folder as the `insightface` package reads it: its manifest.json, or the shapes of the graphs."""
    # Here because importing insightface takes seconds, and only these packs need it.
    from insightface.model_zoo import package_manifest  # noqa: PLC0415  (slow to import, seldom needed)

    if not folder.is_dir():
        raise PackDownloadFailed("The folder given with --from does not exist.")
    is_package = package_manifest.has_model_package_manifest(folder)
    found = _by_package_manifest(folder) if is_package else _by_graph_shape(folder)
    missing = [task for task in ("detection", "recognition") if task not in found]
    if missing:
        raise PackGraphUnsupported(f"InsightFace finds no model for {' and '.join(missing)} in the folder.")
    detection, recognition = found["detection"], found["recognition"]
    for pinned, model in ((manifest.detector, detection), (manifest.recogniser, recognition)):
        if pinned.sha256 is not None:
            check_digest(pinned.file, hashlib.sha256(model.content).hexdigest(), len(model.content), pinned)
    entry, wanted = manifest.detector, (recognition.mean, recognition.scale)
    detector = accept_pixels(
        detection.content, given=(entry.mean, entry.scale), wanted=(detection.mean, detection.scale)
    )
    recogniser = accept_pixels(recognition.content, given=wanted, wanted=wanted)
    update = {"input_name": input_name(recogniser), "mean": recognition.mean, "scale": recognition.scale}
    described = manifest.model_copy(update={"recogniser": manifest.recogniser.model_copy(update=update)})
    return _Published(described, (detection.content, recognition.content), (detector, recogniser))


def _by_package_manifest(folder: Path) -> dict[str, _InsightfaceModel]:
    from insightface.model_zoo import package_manifest  # noqa: PLC0415  (slow to import, seldom needed)

    found = {}
    try:
        package = package_manifest.load_model_package(folder)
        for task in ("detection", "recognition"):
            if task in package.tasks:
                descriptor = package.verify_task(task)
                rule = descriptor.metadata["preprocessing"]
                mean, scale = (0.0, 1.0) if rule == "embedded" else (rule["mean"], rule["std"])
                found[task] = _InsightfaceModel(descriptor.path.read_bytes(), mean, scale)
    except RuntimeError as error:
        raise PackDigestMismatch("A file of the folder is not the one that its manifest.json describes.") from error
    except (ValueError, TypeError, OSError) as error:
        raise PackManifestInvalid("The manifest.json of the folder does not have InsightFace's form.") from error
    return found


def _by_graph_shape(folder: Path) -> dict[str, _InsightfaceModel]:
    from insightface.model_zoo import get_model  # noqa: PLC0415  (slow to import, seldom needed)

    found: dict[str, _InsightfaceModel] = {}
    for path in sorted(folder.glob("*.onnx")):
        try:
            model = get_model(str(path), providers=["CPUExecutionProvider"])
        except (*ORT_REFUSALS, AssertionError, LookupError, TypeError):
            continue  # a file that InsightFace cannot place is none of the two we look for
        if model is not None and model.taskname not in found:
            mean, scale = float(getattr(model, "input_mean", 0)), float(getattr(model, "input_std", 1))
            found[model.taskname] = _InsightfaceModel(path.read_bytes(), mean, scale)
    return found


def _remove_abandoned(models_dir: Path, pack_id: str) -> None:
    for path in models_dir.glob(f".partial-{pack_id}-*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(path, ignore_errors=True)


def _silent(_stage: str, _done: int, _total: int) -> None:
    return
