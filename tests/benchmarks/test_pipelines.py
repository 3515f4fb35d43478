"""The comparison of pipelines: who is tuned on and who is reported, and what each pipeline is."""

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from benchmarks.datasets import Dataset, OpenSet, person_of
from benchmarks.pipelines import PHOTOGRAPHS_A_PERSON, centre_of, halves, main, photographs_of, pipelines
from service.domain import FacePolicy, Image
from service.face.alignment import align
from service.face.detection import FaceDetector, View
from service.face.embedding import Recogniser
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack


def dataset(root: Path, counts: dict[str, int]) -> Dataset:
    photographs = tuple(f"{name}/{name}_{number:04d}.jpg" for name, count in counts.items() for number in range(count))
    return Dataset(root, photographs, (), OpenSet((), (), ()))


def test_the_halves_are_the_same_each_time_and_share_nobody() -> None:
    people = [f"person-{number}" for number in range(101)]
    tuning, reporting = halves(people)
    assert (tuning, reporting) == halves(people)
    assert (len(tuning), len(reporting), tuning & reporting) == (50, 51, frozenset())
    assert tuning != frozenset(people[:50])


def test_a_person_counts_with_a_few_photographs_at_most() -> None:
    data = dataset(Path(), {"anna": 40, "ben": 2, "carl": 9})
    chosen = photographs_of(data, frozenset({"anna", "ben"}))
    assert [person_of(one) for one in chosen].count("anna") == PHOTOGRAPHS_A_PERSON
    assert [one for one in chosen if person_of(one) == "ben"] == ["ben/ben_0000.jpg", "ben/ben_0001.jpg"]
    assert len(set(chosen)) == len(chosen) == PHOTOGRAPHS_A_PERSON + 2


@pytest.mark.models
def test_the_pipelines_are_what_they_are_called(pack: InstalledPack, t1_image: Image, tmp_path: Path) -> None:
    path, portrait = tmp_path / "one.png", np.ascontiguousarray(t1_image[220:520, 380:680])
    PIL.Image.fromarray(portrait).save(path)
    made = {name: extract(path.read_bytes()) for name, extract in pipelines(pack).items()}
    product = Extractor(pack, limits=ImageLimits(), min_face_width_px=20, observe=lambda _phase, _seconds: None)
    shipped = product.extract(path.read_bytes(), FacePolicy.CENTRAL).embedding
    assert np.array_equal(made["shipped"], shipped)
    entry, detector = pack.manifest.recogniser, FaceDetector(pack.detector_path, pack.manifest.detector.kind)
    bare = Recogniser(pack.recogniser_path, dimension=pack.manifest.dimension, mean=entry.mean, scale=entry.scale)
    looks = {"plain": detector.look(portrait, View(640)), "first views": detector.detect(portrait)}
    for name, faces in looks.items():
        assert np.array_equal(made[name], bare.embed([align(portrait, faces[0].landmarks)])[0])
    is_refined = pack.manifest.pack_id == "opencv-zoo"
    assert np.array_equal(made["shipped"], made["first views"]) != is_refined
    assert not np.array_equal(made["plain"], made["first views"])
    assert float(made["plain"] @ made["first views"]) > 0.8


@pytest.mark.models
@pytest.mark.faces
def test_the_benchmark_measures_all_three_pipelines(faces_dir: Path, tmp_path: Path, pack: InstalledPack) -> None:
    names = sorted(path.name for path in (faces_dir / "images").iterdir() if len(list(path.iterdir())) == 2)[:16]
    for name in names:
        shutil.copytree(faces_dir / "images" / name, tmp_path / "images" / name)
    (tmp_path / "pairs.txt").write_text("")
    (tmp_path / "openset.json").write_text('{"gallery": [], "mated": [], "non_mated": []}')
    code = main(["--dataset", str(tmp_path), "--pack", pack.manifest.pack_id, "--json", str(tmp_path / "out.json")])
    figures = json.loads((tmp_path / "out.json").read_text())
    assert code == 0
    assert set(figures["pipelines"]) == {"plain", "first views", "shipped"}
    assert figures["shipped_fnir_ratio"] == {}  # of eight people none is missed: there is no ratio
    assert all(one["rejected"] == 0 and one["mean_s"] > 0 for one in figures["pipelines"].values())


@pytest.mark.models
def test_a_centre_is_a_mean_over_people(pack: InstalledPack, t1_image: Image, tmp_path: Path) -> None:
    """Two people, one tuned on: two photographs of one, so that the centre is their mean whoever it is."""
    photographs = []
    for name, left in (("anna", 380), ("ben", 380)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            crop = np.ascontiguousarray(t1_image[220 - 8 * number : 520, left : left + 300])
            PIL.Image.fromarray(crop).save(tmp_path / "images" / name / f"{number}.png")
            photographs.append(f"{name}/{number}.png")
    centre = np.array(centre_of(Dataset(tmp_path, tuple(photographs), (), OpenSet((), (), ())), pack))
    assert centre.shape == (pack.manifest.dimension,)
    assert 0.9 < np.linalg.norm(centre) <= 1.0001
