"""What refining is worth, on people that nothing was chosen on: `python -m benchmarks.pipelines`.

The people of the data set are divided once by `SPLIT_SEED`. Everything was chosen on the tuning half, and a pack's
centre is the mean of its people (`docs/tried.md`); this compares pipelines of one pack on the reporting half:

- plain: the detector looks once at the image as it is, the face is aligned and embedded
- first views: the detector's small first view and its further ones (decision 0007), no close looks, no centre
- shipped: what the service does
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track
from rich.table import Table

from benchmarks.datasets import Dataset, load_dataset, person_of
from benchmarks.paired_rates import Drawn, Ratio, draw, fnir, paired_ratio
from benchmarks.screen import console
from service.domain import Embedding, FacePolicy
from service.errors import SampleRejected
from service.face.alignment import align
from service.face.detection import FaceDetector, View
from service.face.embedding import Recogniser
from service.face.extractor import Extractor, choose_face
from service.face.image import ImageLimits, decode
from service.face.model_packs import InstalledPack, installed_pack
from service.settings import Settings

SPLIT_SEED = 20260
PHOTOGRAPHS_A_PERSON = 6  # at most: one man has 530
FPIR = 0.01
_LARGER_PX = 640  # a longer side above this is shrunk for the plain detector too

Extract = Callable[[bytes], Embedding]
"""From an image file to its embedding. Raises SampleRejected."""


@dataclass(frozen=True)
class Measured:
    """One pipeline on the reporting half."""

    fnir: float
    rejected: int
    mean_s: float  # of one extraction, one thread


def halves(people: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the people to tune on and the people to report on."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(people))
    shuffled = [people[place] for place in order]
    return frozenset(shuffled[: len(people) // 2]), frozenset(shuffled[len(people) // 2 :])


def photographs_of(dataset: Dataset, people: frozenset[str]) -> list[str]:
    """Return at most `PHOTOGRAPHS_A_PERSON` photographs of each, drawn by a seed."""
    by_person: dict[str, list[str]] = {}
    for photograph in dataset.photographs:
        if person_of(photograph) in people:
            by_person.setdefault(person_of(photograph), []).append(photograph)
    rng = np.random.default_rng(1)
    chosen: list[str] = []
    for own in by_person.values():
        if len(own) <= PHOTOGRAPHS_A_PERSON:
            chosen += own
        else:
            chosen += [own[place] for place in sorted(rng.choice(len(own), PHOTOGRAPHS_A_PERSON, replace=False))]
    return chosen


def pipelines(pack: InstalledPack) -> dict[str, Extract]:
    """Return the three pipelines, by name."""
    uncentred = _uncentred(pack)
    detector = pack.manifest.detector.model_copy(update={"close_looks": ()})
    before = replace(uncentred, manifest=uncentred.manifest.model_copy(update={"detector": detector}))
    return {"plain": _plain(before), "first views": _extract(before), "shipped": _extract(pack)}


def centre_of(dataset: Dataset, pack: InstalledPack) -> list[float]:
    """Return the mean embedding of the tuning half: every person counts the same, however many photographs there are.

    Photographs without a usable face are left out.
    """
    extract = _extract(_uncentred(pack))
    by_person: dict[str, list[Embedding]] = {}
    for photograph in track(photographs_of(dataset, halves(dataset.people)[0]), "centre", console=console):
        with suppress(SampleRejected):
            by_person.setdefault(person_of(photograph), []).append(extract(dataset.read(photograph)))
    means = [np.mean(own, axis=0) for own in by_person.values()]
    return [round(float(value), 5) for value in np.mean(means, axis=0)]


def measure(dataset: Dataset, pack: InstalledPack) -> tuple[dict[str, Measured], dict[str, Ratio]]:
    """Return each pipeline's figures, and the shipped one's FNIR as a share of each other one's."""
    photographs = photographs_of(dataset, halves(dataset.people)[1])
    by_name = pipelines(pack)
    found: dict[str, dict[str, Embedding]] = {name: {} for name in by_name}
    seconds = dict.fromkeys(by_name, 0.0)
    for photograph in track(photographs, pack.manifest.pack_id, console=console):
        data = dataset.read(photograph)
        for name, extract in by_name.items():  # in turn, so that a busy moment of the machine meets all alike
            began = time.perf_counter()
            with suppress(SampleRejected):  # counted below: it is not in `found`
                found[name][photograph] = extract(data)
            seconds[name] += time.perf_counter() - began
    both = [photograph for photograph in photographs if all(photograph in one for one in found.values())]
    drawn = {name: _drawn(both, one) for name, one in found.items()}
    figures = {
        name: Measured(fnir(drawn[name], FPIR), len(photographs) - len(found[name]), seconds[name] / len(photographs))
        for name in by_name
    }
    # who misses nobody, on a few people, leaves nothing to be a share of
    compared = [name for name in by_name if name != "shipped" and figures[name].fnir]
    return figures, {name: paired_ratio(drawn["shipped"], drawn[name], FPIR) for name in compared}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the packs, print a table, write the figures if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipelines", description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/lfw-dev"), help="folder of photographs")
    parser.add_argument("--pack", default="opencv-zoo", help="which pack (default opencv-zoo)")
    parser.add_argument(
        "--centre", action="store_true", help="print the tuning half's centre for the manifest, no more"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    # measuring is no production use, and its licence was accepted when it was fetched
    pack = installed_pack(Settings().models_dir, options.pack, accepted_licences=frozenset({options.pack}))
    dataset = load_dataset(options.dataset)
    if options.centre:
        sys.stdout.write(f"centre = {json.dumps(centre_of(dataset, pack))}\n")
        return 0
    figures, ratios = measure(dataset, pack)
    console.print(_table(options.pack, figures, ratios))
    if options.json is not None:
        options.json.write_text(json.dumps(_document(figures, ratios), indent=2) + "\n", "utf-8")
    return 0


def _uncentred(pack: InstalledPack) -> InstalledPack:
    recogniser = pack.manifest.recogniser.model_copy(update={"centre": ()})
    return replace(pack, manifest=pack.manifest.model_copy(update={"recogniser": recogniser}))


def _extract(pack: InstalledPack) -> Extract:
    extractor = Extractor(pack, limits=ImageLimits(), min_face_width_px=20, observe=lambda _phase, _seconds: None)
    return lambda data: extractor.extract(data, FacePolicy.CENTRAL).embedding


def _plain(pack: InstalledPack) -> Extract:
    entry = pack.manifest.recogniser
    detector = FaceDetector(pack.detector_path, pack.manifest.detector.kind)
    recogniser = Recogniser(
        pack.recogniser_path,
        dimension=pack.manifest.dimension,
        mean=entry.mean,
        scale=entry.scale,
        colour=entry.colour,
        input_name=entry.input_name,
    )

    def extract(data: bytes) -> Embedding:
        image = decode(data, ImageLimits())
        faces = detector.look(image, View(_LARGER_PX)) or detector.detect(image)
        height, width = image.shape[:2]
        face = choose_face(faces, FacePolicy.CENTRAL, width=width, height=height)
        embedding: Embedding = recogniser.embed([align(image, face.landmarks)])[0]
        return embedding

    return extract


def _drawn(photographs: Sequence[str], found: Mapping[str, Embedding]) -> Drawn:
    embeddings = np.array([found[photograph] for photograph in photographs], np.float32)
    return draw(embeddings, [person_of(photograph) for photograph in photographs])


def _table(pack_id: str, figures: Mapping[str, Measured], ratios: Mapping[str, Ratio]) -> Table:
    title = f"{pack_id}, reporting half: FNIR at FPIR {FPIR:.0%}"
    table = Table("pipeline", "FNIR", "rejected", "ms a photograph", "shipped: FNIR ratio", "time ratio", title=title)
    shipped = figures["shipped"]
    for name, one in figures.items():
        ratio = ratios.get(name)
        table.add_row(
            name,
            f"{one.fnir:.2%}",
            str(one.rejected),
            f"{1000 * one.mean_s:.1f}",
            "" if ratio is None else f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
            "" if ratio is None else f"{shipped.mean_s / one.mean_s:.2f}",
        )
    return table


def _document(figures: Mapping[str, Measured], ratios: Mapping[str, Ratio]) -> dict[str, object]:
    return {
        "fpir": FPIR,
        "split_seed": SPLIT_SEED,
        "pipelines": {name: asdict(one) for name, one in figures.items()},
        "shipped_fnir_ratio": {name: asdict(ratio) for name, ratio in ratios.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
