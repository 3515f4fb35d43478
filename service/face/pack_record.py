"""The record of what was installed of a model pack, `installed.json`, by which every start checks the files."""

import hashlib
import json
from pathlib import Path

import onnx
from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import PackDigestMismatch, PackNotInstalled
from service.face.graph_repairs import REPAIR_VERSION, RepairedGraph
from service.face.pack_manifest import Manifest

RECORD_FILE = "installed.json"


class FileRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    published_sha256: str
    installed_sha256: str
    largest_difference: float


class PackRecord(BaseModel):
    """What `fetch_pack` installed. Preprocessing is here because InsightFace packs bring their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repair_version: int
    onnx_version: str
    detector: FileRecord
    recogniser: FileRecord
    input_name: str
    mean: float
    scale: float


def make_record(
    manifest: Manifest, published: tuple[bytes, bytes], repaired: tuple[RepairedGraph, RepairedGraph]
) -> PackRecord:
    """Return the record of a repaired pack; both pairs are detector, recogniser."""
    entry = manifest.recogniser
    detector, recogniser = (_file_record(*pair) for pair in zip(published, repaired, strict=True))
    return PackRecord(
        repair_version=REPAIR_VERSION,
        onnx_version=onnx.__version__,
        detector=detector,
        recogniser=recogniser,
        input_name=entry.input_name,
        mean=entry.mean,
        scale=entry.scale,
    )


def read_record(folder: Path, manifest: Manifest) -> PackRecord:
    """Return the record of an installed pack.

    Raises:
        PackNotInstalled: there is none, it cannot be read, or other repairs made it.
    """
    pack_id = manifest.pack_id
    try:
        record = PackRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
    except FileNotFoundError as error:
        raise PackNotInstalled(f"The model pack {pack_id} is not installed. {fetch_command(pack_id)}") from error
    except (OSError, ValidationError) as error:
        raise PackNotInstalled(f"The record of {pack_id} cannot be read. {fetch_command(pack_id)}") from error
    if record.repair_version != REPAIR_VERSION:
        raise PackNotInstalled(f"{pack_id} was installed by another version. {fetch_command(pack_id)}")
    return record


def check_files(folder: Path, manifest: Manifest, record: PackRecord) -> None:
    """Hash the installed files again.

    Raises:
        PackNotInstalled: a file is missing, or the manifest now asks for another one.
        PackDigestMismatch: a file has changed since it was installed.
    """
    pack_id, entry = manifest.pack_id, manifest.recogniser
    described = (entry.input_name, entry.mean, entry.scale)
    # An InsightFace pack brings its own preprocessing, which the record keeps.
    if manifest.source.kind != "insightface" and described != (record.input_name, record.mean, record.scale):
        raise PackNotInstalled(f"The manifest of {pack_id} has changed since it was fetched. {fetch_command(pack_id)}")
    for graph, file in ((manifest.detector, record.detector), (manifest.recogniser, record.recogniser)):
        if graph.sha256 not in (None, file.published_sha256):
            raise PackNotInstalled(
                f"The manifest of {pack_id} has changed since it was fetched. {fetch_command(pack_id)}"
            )
        path = folder / graph.file
        if not path.is_file():
            raise PackNotInstalled(f"{graph.file} of the model pack {pack_id} is missing. {fetch_command(pack_id)}")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != file.installed_sha256:
            raise PackDigestMismatch(
                f"{graph.file} of {pack_id} is not the file that was installed. {fetch_command(pack_id)}"
            )


def attack_model_path(folder: Path, manifest: Manifest) -> Path | None:
    """Return the liveness model that lies in the pack's folder, None where there is none.

    Raises:
        PackDigestMismatch: it is another file than the manifest names.
    """
    entry = manifest.presentation_attack
    if entry is None or not (path := folder / entry.file).is_file():
        return None
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if (path.stat().st_size, digest) != (entry.size, entry.sha256):
        raise PackDigestMismatch(
            f"{entry.file} of {manifest.pack_id} is not the one that its manifest names: remove it, or get that one"
        )
    return path


def model_id(manifest: Manifest, record: PackRecord) -> str:
    """Return the pack's name and a digest of what decides its embeddings: published files and our treatment."""
    entry = manifest.recogniser
    preprocessing = [manifest.detector.kind, entry.input_size, entry.colour, entry.mean, entry.scale]
    facts: list[object] = [record.detector.published_sha256, record.recogniser.published_sha256, *preprocessing]
    # a pack without them keeps the id that it had before there were any
    if manifest.detector.close_looks:
        facts.append({"close_looks": [look.model_dump() for look in manifest.detector.close_looks]})
    if entry.centre:
        facts.append({"centre": entry.centre})
    return f"{manifest.pack_id}@{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"


def fetch_command(pack_id: str) -> str:
    return f"Run: biodedup models fetch {pack_id}"


def _file_record(published: bytes, repaired: RepairedGraph) -> FileRecord:
    return FileRecord(
        published_sha256=hashlib.sha256(published).hexdigest(),
        installed_sha256=hashlib.sha256(repaired.content).hexdigest(),
        largest_difference=repaired.largest_difference,
    )
