"""Seeded galleries and probes with the mean and covariance of real templates, for the benchmark of 1:N search."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.datasets import Dataset, person_of
from benchmarks.embeddings import FaceSet
from service.domain import Embeddings

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Advance = Callable[[int], None]
"""Told after each block how many templates it held."""


def silent(_done: int) -> None:
    return


BLOCK = 16_384  # rows made, read and compared at once: 32 MiB of 512 dimensions
PACK_OF_DIMENSION = {128: "opencv-zoo", 512: "buffalo_s"}
MATE_COSINES = (0.30, 0.80)
REAL_SHARE = 0.2  # of the mated probes, where real faces are given

_FOLDER = Path(__file__).parent / "population"


@dataclass(frozen=True)
class Population:
    """Where templates lie: mean (D,) and covariance (D, D) of one template a person."""

    mean: FloatArray
    covariance: FloatArray

    @property
    def dimension(self) -> int:
        return len(self.mean)

    def sampler(self) -> Callable[[np.random.Generator, int], FloatArray]:
        """Return what draws n templates: normal with this mean and covariance, then scaled to L2 norm 1."""
        # a little on the diagonal: rounding may leave an eigenvalue just below 0
        jitter = 1e-9 * np.eye(self.dimension)
        factor = np.linalg.cholesky(self.covariance.astype(np.float64) + jitter).T.astype(np.float32)

        def sample(rng: np.random.Generator, count: int) -> FloatArray:
            return _unit(rng.standard_normal((count, self.dimension), np.float32) @ factor + self.mean)

        return sample


def measure_population(faces: FaceSet) -> Population:
    """Return the mean and covariance of the first usable photograph of each person."""
    first: dict[str, int] = {}
    for photograph, row in faces.row_of.items():
        first.setdefault(person_of(photograph), row)
    templates = faces.embeddings[list(first.values())].astype(np.float64)
    return Population(templates.mean(axis=0).astype(np.float32), np.cov(templates.T).astype(np.float32))


def population_path(pack_id: str) -> Path:
    return _FOLDER / f"{pack_id}.npz"


def save_population(path: Path, population: Population) -> None:
    """Keep one half of the symmetric covariance: the other would double the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, mean=population.mean, lower_covariance=np.tril(population.covariance))


def load_population(path: Path) -> Population:
    with np.load(path) as kept:
        lower = kept["lower_covariance"]
        return Population(kept["mean"], lower + np.tril(lower, -1).T)


@dataclass(frozen=True)
class RealMates:
    """Templates of real people, row by row of one person: one for the gallery, another as probe."""

    gallery: FloatArray
    probes: FloatArray


def real_mates(dataset: Dataset, faces: FaceSet, count: int) -> RealMates:
    """Return up to `count` people of the open set with a usable face in both photographs."""
    enrolled = {person_of(photograph): photograph for photograph in dataset.open_set.gallery}
    pairs = [
        (enrolled[person_of(photograph)], photograph)
        for photograph in dataset.open_set.mated
        if photograph in faces.row_of and enrolled[person_of(photograph)] in faces.row_of
    ][:count]
    return RealMates(faces.rows([first for first, _ in pairs]), faces.rows([second for _, second in pairs]))


@dataclass(frozen=True)
class GalleryFile:
    """A gallery in a file, read in blocks: made once, and never in memory as a whole."""

    path: Path
    size: int
    dimension: int

    def blocks(self, rows: int = BLOCK, *, first: int = 0) -> Iterator[tuple[int, FloatArray]]:
        """Yield the number of the first template of each block and the block, from template `first` on."""
        for start in range(first, self.size, rows):
            yield start, self._read(start, min(rows, self.size - start))

    def rows(self, numbers: IntArray) -> FloatArray:
        return np.concatenate([self._read(int(number), 1) for number in numbers])

    def _read(self, start: int, count: int) -> FloatArray:
        offset = start * self.dimension * 4
        flat = np.fromfile(self.path, np.float32, count * self.dimension, offset=offset)
        return flat.reshape(count, self.dimension)


def drawn_blocks(population: Population, seed: int, start: int, end: int) -> Iterator[tuple[int, FloatArray]]:
    """Yield templates `start` to `end` of the gallery of this seed in blocks, each after its first number."""
    sample = population.sampler()
    for first in range(start - start % BLOCK, end, BLOCK):
        block = sample(np.random.default_rng([seed, 0, first // BLOCK]), BLOCK)
        low = max(start, first)
        yield low, block[low - first : end - first]


def make_gallery(
    path: Path, population: Population, size: int, seed: int, real: Sequence[FloatArray] = (), advance: Advance = silent
) -> GalleryFile:
    """Write `size` templates to `path`; the first rows are those of `real`.

    A template depends on the seed and on its number only: a larger gallery begins with the smaller one.

    Raises:
        OSError: the disk has no room for it.
    """
    needed, free = size * population.dimension * 4, shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(f"the gallery needs {needed / 1e9:.1f} GB in {path.parent}, which has {free / 1e9:.1f} GB")
    with path.open("wb") as file:
        for _, block in drawn_blocks(population, seed, 0, size):
            file.write(block.tobytes())
            advance(len(block))
        if real:
            file.seek(0)
            file.write(np.concatenate(real).astype(np.float32).tobytes())
    return GalleryFile(path, size, population.dimension)


@dataclass(frozen=True)
class Probes:
    """Mated and non-mated probes in random order."""

    embeddings: Embeddings  # (n, D) float32, L2 norm 1
    mates: IntArray  # number of the mate in the gallery, -1 for non-mated probes
    is_real: npt.NDArray[np.bool_]  # of a real person

    def __len__(self) -> int:
        return len(self.mates)


def make_probes(
    gallery: GalleryFile, population: Population, count: int, seed: int, real: FloatArray | None = None
) -> Probes:
    """Return `count` mated probes and as many non-mated ones.

    The mated ones of `real` belong to the first templates of the gallery, row by row; the others lie at a cosine of
    0.30 to 0.80 (uniform) to a template drawn at random.
    """
    rng, sample = np.random.default_rng([seed, 1]), population.sampler()
    first = np.empty((0, population.dimension), np.float32) if real is None else real
    made = count - len(first)
    mates = rng.choice(gallery.size - len(first), made, replace=made > gallery.size - len(first)) + len(first)
    cosines = rng.uniform(*MATE_COSINES, made).astype(np.float32)
    mated = mated_probes(gallery.rows(mates), sample(rng, made), cosines) if made else sample(rng, 0)
    embeddings = np.concatenate([first, mated, sample(rng, count)])
    numbers = np.concatenate([np.arange(len(first)), mates, np.full(count, -1)]).astype(np.int64)
    order = rng.permutation(2 * count)
    return Probes(_unit(embeddings)[order], numbers[order], (np.arange(2 * count) < len(first))[order])


def mated_probes(templates: FloatArray, others: FloatArray, cosines: FloatArray) -> FloatArray:
    """Return probes at these cosines to the templates; the rest of each points to another person's template."""
    along = np.einsum("ij,ij->i", templates, others)[:, None]
    rest = _unit(others - along * templates)
    cosine = cosines[:, None]
    mated: FloatArray = (cosine * templates + np.sqrt(1 - cosine**2) * rest).astype(np.float32)
    return mated


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit
