"""What `models/<pack>/manifest.toml` says of a model pack (described for people in models/README.md)."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from service.errors import PackManifestInvalid, PackUnknown

MANIFEST_FILE = "manifest.toml"
MAX_FILE_BYTES = 2 * 1024**3  # protobuf cannot hold a larger graph

PackId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
OnnxFileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\.onnx$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Bytes = Annotated[int, Field(gt=0, le=MAX_FILE_BYTES)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Licence(_Part):
    """What the weights may be used for. A restricted pack runs only after an explicit acknowledgement."""

    name: Text
    link: Text
    restricted: bool
    plain_words: Text


class WheelSource(_Part):
    """A wheel of the package index, used as an archive: never installed, never run."""

    kind: Literal["wheel"]
    project: Text
    version: Text
    size: Bytes
    sha256: Sha256
    upstream: tuple[Text, ...] = ()

    @property
    def file_prefix(self) -> str:
        """Start of the wheel's file name, in lower case (PyPA, binary distribution format)."""
        return f"{re.sub(r'[-_.]+', '_', self.project)}-{self.version}-".lower()


class FolderSource(_Part):
    """ONNX files that the operator brings (`--from FOLDER`), named by `member`."""

    kind: Literal["folder"]
    upstream: tuple[Text, ...] = ()


class InsightfaceSource(_Part):
    """A folder in InsightFace's own form; the `insightface` package says which file does what."""

    kind: Literal["insightface"]
    upstream: tuple[Text, ...] = ()


class GraphFile(_Part):
    """One ONNX file. `size` and `sha256` are those of the published file, before any repair."""

    file: OnnxFileName
    member: Text | None = None
    size: Bytes | None = None
    sha256: Sha256 | None = None

    @property
    def is_pinned(self) -> bool:
        return None not in (self.member, self.size, self.sha256)


class CloseLook(_Part):
    """One more look of the detector at the face that was chosen, upright in a square (`service/face/refinement.py`)."""

    side_px: int = Field(ge=64, le=640, multiple_of=32)
    mirrored: bool = False


class DetectorEntry(GraphFile):
    """`yunet`: BGR, 0..255. `scrfd`: RGB, (x - 127.5) / 128."""

    kind: Literal["yunet", "scrfd"]
    close_looks: tuple[CloseLook, ...] = Field(default=(), max_length=16)

    @property
    def mean(self) -> float:
        return 127.5 if self.kind == "scrfd" else 0.0

    @property
    def scale(self) -> float:
        return 128.0 if self.kind == "scrfd" else 1.0


class RecogniserEntry(GraphFile):
    """The graph sees (x - mean) / scale of an aligned crop, x being 0..255."""

    input_name: Text
    layout: Literal["NCHW"]
    input_size: Literal[112]  # pixels; the side of the aligned crop
    colour: Literal["RGB", "BGR"]
    mean: float = Field(ge=0, le=255)
    scale: float = Field(gt=0, le=255)
    centre: tuple[Annotated[float, Field(ge=-1, le=1)], ...] = ()  # subtracted from embeddings of length 1


class PresentationAttackEntry(_Part):
    """A liveness model that the operator may lay beside the pack's files; without the file nothing is assessed."""

    file: OnnxFileName
    size: Bytes
    sha256: Sha256
    threshold: float = Field(default=0.8, gt=0, lt=1)  # bona fide from here on; insightface's own default


class Manifest(_Part):
    """One model pack: where its files come from, what they are, how an image is prepared for them."""

    pack_id: PackId
    title: Text
    dimension: int = Field(ge=16, le=4096)
    licence: Licence
    source: WheelSource | FolderSource | InsightfaceSource = Field(discriminator="kind")
    detector: DetectorEntry
    recogniser: RecogniserEntry
    presentation_attack: PresentationAttackEntry | None = None

    @model_validator(mode="after")
    def _files_are_distinct_and_pinned(self) -> Self:
        extra = [] if self.presentation_attack is None else [self.presentation_attack.file]
        names = [self.detector.file, self.recogniser.file, *extra]
        if len(set(names)) < len(names):
            raise ValueError("detector and recogniser need different file names, and so does presentation_attack")
        if self.source.kind != "insightface" and not (self.detector.is_pinned and self.recogniser.is_pinned):
            raise ValueError("detector and recogniser each need member, size and sha256")
        return self

    @model_validator(mode="after")
    def _centre_is_an_embedding(self) -> Self:
        if self.recogniser.centre and len(self.recogniser.centre) != self.dimension:
            raise ValueError(f"recogniser.centre needs {self.dimension} numbers, as an embedding has")
        return self


def pack_ids(models_dir: Path) -> list[str]:
    """Return the folders that hold a manifest, sorted."""
    return sorted(path.parent.name for path in models_dir.glob(f"[!.]*/{MANIFEST_FILE}"))


def load_manifest(models_dir: Path, pack_id: str) -> Manifest:
    """Return the manifest of one pack.

    Raises:
        PackUnknown: there is no such pack; the message names the nearest one.
        PackManifestInvalid: the manifest does not have the documented form.
    """
    known = pack_ids(models_dir)
    if pack_id not in known:
        near = difflib.get_close_matches(pack_id, known, n=1, cutoff=0.0)
        hint = f" Did you mean {near[0]!r}?" if near else " The model folder holds no pack."
        raise PackUnknown(f"There is no model pack {pack_id!r}.{hint}")
    try:
        content = (models_dir / pack_id / MANIFEST_FILE).read_text(encoding="utf-8")
        manifest = Manifest.model_validate(tomllib.loads(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise PackManifestInvalid(f"The manifest of {pack_id} is wrong at {place}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise PackManifestInvalid(f"The manifest of {pack_id} cannot be read: {error}") from error
    if manifest.pack_id != pack_id:
        raise PackManifestInvalid(f"The manifest in the folder {pack_id} calls itself {manifest.pack_id}")
    return manifest
