"""Turns aligned crops into unit vectors that can be compared by their inner product."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.errors import PackGraphUnsupported, TemplateUnusable
from service.face.alignment import SIZE_PX, Crop
from service.face.sessions import open_session


class Recogniser:
    """An ArcFace-style recogniser through ONNX Runtime. One may be used by many threads at once."""

    def __init__(
        self,
        path: Path,
        *,
        dimension: int,
        mean: float,
        scale: float,
        colour: Literal["RGB", "BGR"] = "RGB",
        input_name: str | None = None,
        centre: Sequence[float] = (),
    ) -> None:
        """Load the graph; it sees (x - mean) / scale of crops of 112 x 112 in the given channel order.

        `centre`, `dimension` numbers or none, is subtracted from each embedding of length 1.

        Raises:
            PackGraphUnsupported: the file cannot be loaded, has no such input or makes no vectors of `dimension`.
        """
        self._session = open_session(path)
        self._mean, self._scale, self._colour = np.float32(mean), np.float32(scale), colour
        inputs = [graph_input.name for graph_input in self._session.get_inputs()]
        self._input = input_name or inputs[0]
        if inputs != [self._input]:
            raise PackGraphUnsupported(f"the recogniser needs the one input {self._input!r} and has {inputs}")
        self.dimension = dimension
        self._centre = np.array(centre, np.float32) if centre else None
        made = self._run(np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8)).shape
        if made != (dimension,):
            raise PackGraphUnsupported(f"the recogniser makes vectors of shape {made}, its manifest says {dimension}")

    def embed(self, crops: Sequence[Crop]) -> Embeddings:
        """Return one embedding a crop.

        Args:
            crops: n arrays (112, 112, 3) uint8, RGB.

        Returns:
            (n, D) float32, each row of L2 norm 1.

        Raises:
            TemplateUnusable: the graph gave something that is not finite, or nothing at all.
        """
        return self.embed_with_norms(crops)[0]

    def embed_with_norms(self, crops: Sequence[Crop]) -> tuple[Embeddings, npt.NDArray[np.float32]]:
        """Return what `embed` returns, and (n,) float32 the norm of each row as the graph gave it, above 0.

        The norm says how much of a face the graph found in the crop (`service/face/unified.py`).
        """
        embeddings = np.empty((len(crops), self.dimension), np.float32)
        for row, crop in enumerate(crops):
            # one by one: batches are slower (measured, see batching.py) and many published graphs fix the batch at 1
            embeddings[row] = self._run(crop)
        norms = np.linalg.norm(embeddings, axis=1)
        embeddings = _unit(embeddings)
        if self._centre is not None:
            embeddings = _unit(embeddings - self._centre)
        return embeddings, norms

    def _run(self, crop: Crop) -> npt.NDArray[np.float32]:
        channels = crop[:, :, ::-1] if self._colour == "BGR" else crop
        pixels = channels.transpose(2, 0, 1)[None].astype(np.float32)
        if self._mean:
            pixels -= self._mean
        if self._scale != 1:
            pixels /= self._scale
        return np.asarray(self._session.run(None, {self._input: pixels})[0][0], np.float32)


def _unit(embeddings: Embeddings) -> Embeddings:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    # a row that is not finite equals nothing, not even itself: it would be enrolled and never found
    if not (np.isfinite(norms).all() and norms.all()):
        raise TemplateUnusable("the model could make nothing of this face: take another photograph")
    return np.asarray(embeddings / norms, np.float32)
