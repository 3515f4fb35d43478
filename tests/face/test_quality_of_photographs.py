"""Quality of real photographs that were made worse, or other, in a way that is known: six people, both packs."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from service.domain import Advice, FacePolicy, Image, Quality
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack, installed_pack
from service.quality_rule import advice_on
from tests.conftest import installed_models
from tests.faces import SIX_PEOPLE, face_of

pytestmark = pytest.mark.models

PEOPLE = range(len(SIX_PEOPLE))

# the first view of YuNet hardly sees small angles (docs/quality.md): they are tested with SCRFD
SEES_ANGLES = "buffalo_s"


@pytest.fixture(scope="module")
def extractor(pack: InstalledPack) -> Extractor:
    return Extractor(pack, limits=ImageLimits(), min_face_width_px=20, observe=lambda _phase, _seconds: None)


@pytest.fixture(scope="module")
def seeing() -> Extractor:
    pack = installed_pack(installed_models(), SEES_ANGLES, accepted_licences=frozenset({SEES_ANGLES}))
    return Extractor(pack, limits=ImageLimits(), min_face_width_px=20, observe=lambda _phase, _seconds: None)


def portrait(person: int) -> Image:
    return np.array(face_of(person))


def rated(extractor: Extractor, image: npt.ArrayLike) -> Quality:
    return extractor.extract_image(np.ascontiguousarray(image, np.uint8), FacePolicy.LARGEST).quality


def blurred(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def lit(image: Image, factor: float) -> Image:
    return np.asarray(np.clip(image * factor, 0, 255), np.uint8)


def turned(image: Image, degrees: float) -> Image:
    """Turn clockwise, keeping the size; what comes in from outside repeats the edge."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def relative_sharpness(quality: Quality) -> float:
    assert quality.luminance_variance
    return quality.sharpness / quality.luminance_variance


@pytest.mark.parametrize("person", PEOPLE)
def test_the_more_blur_the_less_sharp_and_the_lower_the_unified_score(extractor: Extractor, person: int) -> None:
    plain, *worse = (
        rated(extractor, portrait(person)),
        *(rated(extractor, blurred(portrait(person), each)) for each in (2, 4, 6)),
    )
    sharpness = [plain.sharpness, *(each.sharpness for each in worse)]
    assert sorted(sharpness, reverse=True) == sharpness
    assert relative_sharpness(worse[0]) < relative_sharpness(plain) / 4
    assert plain.unified is not None
    assert worse[1].unified is not None
    assert worse[2].unified is not None
    assert worse[2].unified <= worse[1].unified <= plain.unified
    assert worse[2].unified < 30
    assert all(Advice.HOLD_STILL in advice_on(each) for each in worse)
    assert Advice.HOLD_STILL not in advice_on(plain)


@pytest.mark.parametrize("person", PEOPLE)
def test_the_darker_the_more_is_under_exposed(extractor: Extractor, person: int) -> None:
    found = [rated(extractor, lit(portrait(person), factor)) for factor in (1.0, 0.3, 0.15, 0.08)]
    dark = [each.under_exposure or 0.0 for each in found]
    assert sorted(dark) == dark
    assert dark[0] < 0.01
    assert dark[-1] > 0.95
    ranges = [each.dynamic_range or 0.0 for each in found]
    assert sorted(ranges, reverse=True) == ranges
    assert [Advice.MORE_LIGHT in advice_on(each) for each in found] == [False, False, True, True]
    assert (found[-1].unified or 0) < (found[0].unified or 0) or found[0].unified == 0


@pytest.mark.parametrize("person", [1, 3, 4, 5])
def test_too_much_light_is_over_exposed(extractor: Extractor, person: int) -> None:
    plain, white = (rated(extractor, lit(portrait(person), factor)) for factor in (1.0, 1.5))
    assert plain.over_exposure == 0
    assert (white.over_exposure or 0) > 0.3
    assert Advice.LESS_LIGHT in advice_on(white)
    assert Advice.LESS_LIGHT not in advice_on(plain)
    assert (white.unified or 0) < (plain.unified or 0)


@pytest.mark.parametrize("person", [2, 3, 5])
def test_an_enlarged_photograph_is_rated_as_the_photograph(extractor: Extractor, person: int) -> None:
    image = portrait(person)
    plain, large = (rated(extractor, each) for each in (image, cv2.resize(image, None, fx=2, fy=2)))
    assert large.inter_eye_px == pytest.approx(2 * plain.inter_eye_px, rel=0.1)
    assert large.head_size == pytest.approx(plain.head_size, rel=0.03)
    assert (large.yaw_deg, large.pitch_deg, large.roll_deg) == pytest.approx(
        (plain.yaw_deg, plain.pitch_deg, plain.roll_deg), abs=4
    )
    assert large.illumination_uniformity == pytest.approx(plain.illumination_uniformity, abs=0.03)
    assert large.dynamic_range == pytest.approx(plain.dynamic_range, abs=0.05)
    assert large.unified == pytest.approx(plain.unified, abs=7)  # half a standard deviation


@pytest.mark.parametrize("person", PEOPLE)
def test_less_contrast_is_not_less_sharp(extractor: Extractor, person: int) -> None:
    image = portrait(person)
    plain, dim = (rated(extractor, each) for each in (image, lit(image, 0.5) + 64))
    assert dim.sharpness < 0.5 * plain.sharpness
    assert relative_sharpness(dim) == pytest.approx(relative_sharpness(plain), rel=0.35)


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("degrees", [-20, -10, 10, 20])
def test_a_turned_photograph_has_so_much_more_roll_and_the_same_yaw(
    seeing: Extractor, person: int, degrees: float
) -> None:
    plain, other = (rated(seeing, turned(portrait(person), each)) for each in (0, degrees))
    assert other.roll_deg - plain.roll_deg == pytest.approx(degrees, abs=8)
    assert other.yaw_deg == pytest.approx(plain.yaw_deg, abs=9)


@pytest.mark.parametrize("person", PEOPLE)
def test_a_mirror_image_turns_the_other_way(seeing: Extractor, person: int) -> None:
    plain, mirrored = (rated(seeing, each) for each in (portrait(person), portrait(person)[:, ::-1]))
    assert mirrored.yaw_deg == pytest.approx(-plain.yaw_deg, abs=4)
    assert mirrored.roll_deg == pytest.approx(-plain.roll_deg, abs=4)
    assert mirrored.illumination_uniformity == pytest.approx(plain.illumination_uniformity, abs=0.06)
    assert mirrored.unified == pytest.approx(plain.unified, abs=8)


def test_several_people_are_told(extractor: Extractor, t1_image: Image) -> None:
    quality = rated(extractor, t1_image)
    assert quality.face_count == 6
    assert 0.8 < (quality.second_face_share or 0) < 1.2
    assert Advice.ALONE in advice_on(quality)
    assert rated(extractor, portrait(5)).second_face_share == 0
