"""Makes the golden numbers anew: `python -m tests.golden.make_golden ORIGINALS`.

The files in the folder ORIGINALS are the members that the manifests of `opencv-zoo` and `buffalo_s` name, as published,
before any repair. References: `cv2.FaceDetectorYN`, the alignment of `cv2.FaceRecognizerSF` and `cv2.dnn`;
insightface's `SCRFD` and `ArcFaceONNX`. The image is insightface's `t1` at half its size,
so that no library resizes it again.
"""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import insightface
import numpy as np
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.model_zoo.scrfd import SCRFD
from insightface.utils import face_align

HERE = Path(__file__).parent


def half_of_t1() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(443, 640, 3) uint8, BGR."""
    image = cv2.imread(str(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"))
    assert image is not None
    return np.asarray(cv2.resize(image, (640, 443), interpolation=cv2.INTER_AREA), np.uint8)


def opencv_zoo(originals: Path) -> list[dict[str, Any]]:
    image = half_of_t1()
    detector = cv2.FaceDetectorYN.create(
        str(originals / "face_detection_yunet_2023mar_int8bq.onnx"), "", (640, 443), 0.6, 0.3
    )
    weights = str(originals / "face_recognition_sface_2021dec_int8bq.onnx")
    aligner, network = cv2.FaceRecognizerSF.create(weights, ""), cv2.dnn.readNetFromONNX(weights)
    found = []
    for row in detector.detect(image)[1]:
        left, top, width, height = row[:4].tolist()
        # what FaceRecognizerSF.feature does; it cannot itself run a graph that lists its weights as inputs
        network.setInput(cv2.dnn.blobFromImage(aligner.alignCrop(image, row), swapRB=True), "data")
        embedding = network.forward()[0]
        found.append(_face([left, top, left + width, top + height], row[4:14], row[14], embedding))
    return found


def buffalo_s(originals: Path) -> list[dict[str, Any]]:
    image = half_of_t1()
    detector = SCRFD(str(originals / "scrfd_500m_bnkps.onnx"))
    detector.prepare(-1, input_size=(640, 640), det_thresh=0.5, nms_thresh=0.3)
    recogniser = ArcFaceONNX(str(originals / "w600k_mbf.onnx"))
    boxes, landmarks = detector.detect(image)
    return [
        _face(box[:4].tolist(), points, box[4], recogniser.get_feat(face_align.norm_crop(image, points))[0])
        for box, points in zip(boxes, landmarks, strict=True)
    ]


def _face(box: list[float], landmarks: Any, score: Any, embedding: Any) -> dict[str, Any]:
    unit = embedding / np.linalg.norm(embedding)
    return {
        "box": [round(side, 2) for side in box],
        "landmarks": np.asarray(landmarks, float).reshape(5, 2).round(2).tolist(),
        "score": round(float(score), 4),
        "embedding": unit.astype(float).round(5).tolist(),
    }


if __name__ == "__main__":
    for name, make in (("opencv-zoo", opencv_zoo), ("buffalo_s", buffalo_s)):
        (HERE / f"t1_half_{name}.json").write_text(json.dumps(make(Path(sys.argv[1]))) + "\n")
