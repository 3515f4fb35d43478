"""From the samples of a request to the templates they give: of the ruling pack, and of one that stands by."""

from collections.abc import Sequence

from service.domain import Box, FacePolicy, Gallery, Template
from service.enrolment_samples import Extracted
from service.errors import SampleRejected
from service.metrics import Metrics
from service.packs import Packs
from service.ports import Embedder


def is_same_face(one: Box | None, other: Box) -> bool:
    """Whether two detectors mean one face: the middle of each box lies in the other. A box that nobody knows does."""
    if one is None:
        return True
    return _holds_middle(one, other) and _holds_middle(other, one)


def _holds_middle(outer: Box, inner: Box) -> bool:
    x, y = (inner.left + inner.right) / 2, (inner.top + inner.bottom) / 2
    return outer.left <= x < outer.right and outer.top <= y < outer.bottom


class ProbeMaker:
    """Makes the templates of a request with the packs of its gallery."""

    def __init__(self, packs: Packs, metrics: Metrics, face_policy: FacePolicy) -> None:
        self._packs = packs
        self._metrics = metrics
        self._face_policy = face_policy

    def extract(self, samples: Sequence[bytes], gallery: Gallery) -> Extracted:
        """Return what became of each sample; the ruling pack says which of them are usable.

        Raises:
            PackNotLoaded: a pack of the gallery, the standby one too: whoever is enrolled must be found by both.
            Overloaded, NotReady
        """
        ruling, *standby = [self._packs.of(pack_id).embedder for pack_id in gallery.pack_ids]
        templates: list[tuple[int, Template]] = []
        rejected: list[tuple[int, SampleRejected]] = []
        for position, sample in enumerate(samples):
            try:
                templates.append((position, ruling.extract(sample, self._face_policy)))
            except SampleRejected as error:
                self._metrics.rejections.labels(code=error.code).inc()
                rejected.append((position, error))
        found = [
            (position, other)
            for embedder in standby
            for position, template in templates
            if (other := self._standby_template(embedder, samples[position], template.box)) is not None
        ]
        return Extracted(gallery.pack_ids, tuple(templates), tuple(rejected), tuple(found))

    def _standby_template(self, embedder: Embedder, sample: bytes, box: Box) -> Template | None:
        """Return the template of the same face by the standby pack, None where it makes none."""
        try:
            template = embedder.extract(sample, self._face_policy)
        except SampleRejected:
            template = None
        if template is None or not is_same_face(box, template.box):
            self._metrics.standby_rejections.inc()
            return None
        return template
