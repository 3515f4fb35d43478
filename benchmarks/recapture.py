"""Honest second photographs of a face: what a second visit to a desk changes in a picture, made from the first one."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

_RESAMPLING = Image.Resampling.BICUBIC


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a second photograph differs from the first. Mild: another day, the same person, a usable picture."""

    tilt_deg: float  # of the head or the camera, counter-clockwise
    crop: tuple[float, float, float, float]  # share cut off at left, top, right, bottom
    zoom: float  # size of the new picture to the old one
    gamma: float  # light: above 1 is darker
    warmth: float  # red against blue, as another lamp
    blur_px: float  # standard deviation
    noise: float  # standard deviation in grey levels, as a small sensor
    jpeg_quality: int


def draw_conditions(seed: int) -> Conditions:
    """Return conditions drawn within mild ranges: equal seeds, equal conditions."""
    random = np.random.default_rng(seed)
    left, top, right, bottom = (float(share) for share in random.uniform(0.02, 0.10, 4))
    return Conditions(
        tilt_deg=float(random.uniform(3, 7) * random.choice([-1, 1])),
        crop=(left, top, right, bottom),
        zoom=float(random.uniform(0.75, 0.95)),
        gamma=float(random.uniform(0.8, 1.3)),
        warmth=float(random.uniform(-0.06, 0.06)),
        blur_px=float(random.uniform(0.3, 0.8)),
        noise=float(random.uniform(1.5, 3.5)),
        jpeg_quality=int(random.integers(60, 80)),
    )


def recapture(photograph: Image.Image, seed: int) -> bytes:
    """Return a second photograph of what `photograph` shows, as JPEG.

    Args:
        photograph: with a generous margin around the face, since a tilt and another crop take some of it away.
        seed: of the conditions and of the noise.
    """
    conditions = draw_conditions(seed)
    tilted = _tilt(photograph.convert("RGB"), conditions.tilt_deg)
    cropped = _crop(tilted, conditions.crop)
    size = (max(1, round(cropped.width * conditions.zoom)), max(1, round(cropped.height * conditions.zoom)))
    blurred = cropped.resize(size, _RESAMPLING).filter(ImageFilter.GaussianBlur(conditions.blur_px))
    lit = _light(np.asarray(blurred), conditions, np.random.default_rng([seed, 1]))
    written = io.BytesIO()
    Image.fromarray(lit).save(written, "JPEG", quality=conditions.jpeg_quality)
    return written.getvalue()


def _tilt(image: Image.Image, degrees: float) -> Image.Image:
    """Turn the picture around its centre; the corners repeat its edge, for black corners are in no photograph."""
    pixels = np.asarray(image)
    margin = round(max(image.size) * 0.1)
    padded = Image.fromarray(np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    turned = padded.rotate(degrees, _RESAMPLING)
    return turned.crop((margin, margin, margin + image.width, margin + image.height))


def _crop(image: Image.Image, shares: tuple[float, float, float, float]) -> Image.Image:
    left, top, right, bottom = shares
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def _light(pixels: npt.NDArray[np.uint8], conditions: Conditions, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Apply light, colour of the lamp and sensor noise to (H, W, 3) uint8 RGB pixels."""
    light = (pixels / 255.0) ** conditions.gamma
    light *= np.array([1 + conditions.warmth, 1.0, 1 - conditions.warmth])
    noisy = light * 255.0 + random.normal(0.0, conditions.noise, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
