"""What every embedder promises: the fake one and the real packs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.domain import FacePolicy
from service.errors import SampleEmpty, SampleRejected
from service.face.image import ImageLimits
from service.face.model_packs import installed_pack
from service.face.worker import Setup
from service.face.worker_pool import PooledEmbedder, WorkerPool
from service.ports import Embedder
from tests.fake_embedder import FakeEmbedder

Case = tuple[Embedder, bytes, bytes]
"""An embedder, a sample with a face, a sample without."""


def _real(request: pytest.FixtureRequest, pack_id: str) -> Case:
    models_dir: Path = request.getfixturevalue("models_dir")
    t1_path: Path = request.getfixturevalue("t1_path")
    pack = installed_pack(models_dir, pack_id, accepted_licences=frozenset({"buffalo_s"}))
    pool = WorkerPool(
        Setup((pack,), ImageLimits(), min_face_width_px=20, log_level="warning"),
        workers=1,
        queue_limit=1,
        max_wait_s=10.0,
        max_sample_s=60.0,
        observe=lambda _phase, _seconds: None,
        on_loss=lambda: None,
    )
    request.addfinalizer(pool.close)
    return PooledEmbedder(pool, pack), t1_path.read_bytes(), b"not an image"


MAKERS: dict[str, Callable[[pytest.FixtureRequest], Case]] = {
    "fake": lambda _request: (FakeEmbedder(), b"anna/1", b"noface"),
    "opencv-zoo": lambda request: _real(request, "opencv-zoo"),
    "buffalo_s": lambda request: _real(request, "buffalo_s"),
}


@pytest.fixture(
    scope="module",
    params=[
        "fake",
        pytest.param("opencv-zoo", marks=pytest.mark.models),
        pytest.param("buffalo_s", marks=pytest.mark.models),
    ],
)
def case(request: pytest.FixtureRequest) -> Case:
    return MAKERS[request.param](request)


def test_a_template_is_a_unit_vector_of_the_promised_size_and_pack(case: Case) -> None:
    embedder, sample, _ = case
    template = embedder.extract(sample, FacePolicy.LARGEST)
    assert template.pack_id == embedder.pack_id
    assert template.embedding.dtype == np.float32
    assert template.embedding.shape == (embedder.dimension,)
    assert np.linalg.norm(template.embedding) == pytest.approx(1.0, abs=1e-5)
    assert template.box.width > 0
    assert template.quality.face_count >= 1


def test_the_same_sample_gives_the_same_template(case: Case) -> None:
    embedder, sample, _ = case
    first, second = (embedder.extract(sample, FacePolicy.LARGEST) for _ in range(2))
    assert first.embedding @ second.embedding == pytest.approx(1.0, abs=1e-5)


def test_a_sample_without_a_face_is_rejected(case: Case) -> None:
    embedder, _, garbage = case
    with pytest.raises(SampleRejected):
        embedder.extract(garbage, FacePolicy.LARGEST)


def test_an_empty_sample_is_rejected_as_empty(case: Case) -> None:
    embedder, _, _ = case
    with pytest.raises(SampleEmpty):
        embedder.extract(b"", FacePolicy.LARGEST)


def test_the_model_id_names_the_pack(case: Case) -> None:
    embedder, _, _ = case
    assert embedder.model_id.startswith(embedder.pack_id)
