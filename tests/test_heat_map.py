"""Heat maps: where a known model must find its lesion, what the overlay shows, and the shipped model on sample photos."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_lesions import contract

from inference.bundle import Bundle, TensorSpec, load_bundle
from inference.case import Photo
from inference.errors import BundleError, PhotoError
from inference.heat_map import LEAST_FULL_FALL, STEPS, HeatMap, _ramp, heat_map, overlay_png
from inference.lesions import LesionModel, LesionRequest, LesionScore
from inference.models import live_versions
from inference.photo import PhotoRecipe

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "sample" / "photos"
SIZE, CELLS = 90, 9  # cells of ten pixels
SKIN, LESION = (200, 150, 120), (90, 20, 20)
LARGEST_BYTES = 12_000

Array = NDArray[Any]


class DarkestSession:
    """A model whose malignancy probability and heat map are shares of dark pixels, of the photo and of each of its 81 cells."""

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        """Red is normalised: 200 is 0.57 and 90 is -0.29, the skin's and the lesion's."""
        dark = (feeds["photo"][:, 0] < 0).astype(np.float32)
        malignant = dark.mean(axis=(1, 2))
        rows = np.zeros((len(malignant), 6), np.float32)
        rows[:, 0], rows[:, 1] = 1 - malignant, malignant
        heat = dark.reshape(-1, CELLS, SIZE // CELLS, CELLS, SIZE // CELLS).mean(axis=(2, 4))
        answers = {"probabilities": rows, "malignancy_probability": malignant, "heat_map": heat}
        return [answers[name] for name in names]


HEAT = TensorSpec(name="heat_map", dtype="float32", shape=("n", "rows", "columns"), meaning="x")


def darkest_model(geometry: str = "squash") -> LesionModel:
    """A lesion model over that session."""
    recipe = PhotoRecipe(SIZE, geometry, (127.0,) * 3, (128.0,) * 3)
    made = contract(preprocessing=recipe.as_contract(), outputs=(*contract().outputs, HEAT))
    return LesionModel(Bundle(made, "0" * 64, DarkestSession()), 1)


def photo(folder: Path, size: tuple[int, int], box: tuple[int, int, int, int], orientation: int = 1) -> LesionRequest:
    """A photo of skin with a dark box (left, top, right, bottom) as a lesion."""
    image = Image.new("RGB", size, SKIN)
    image.paste(LESION, box)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(folder / "a.png", exif=exif)
    return LesionRequest(Photo(path="a.png"), folder, 60)


def drawn(heat: HeatMap) -> Array:
    """The overlay's pixels, [height, width, RGBA]."""
    return np.asarray(Image.open(io.BytesIO(overlay_png(heat))).convert("RGBA"))


def flat(grid: Array, size: tuple[int, int] = (256, 256), geometry: Any = "squash") -> HeatMap:
    """A heat map of a given grid."""
    return HeatMap(grid.astype(np.float32), 0.5, size, geometry)


def test_a_heat_map_is_the_bundles_own(tmp_path):
    """A lesion of four by four cells: each of them is 1 and all others are 0, with the photo's size and probability beside."""
    heat = heat_map(darkest_model(), photo(tmp_path, (180, 180), (40, 100, 120, 180)))
    expected = np.zeros((CELLS, CELLS))
    expected[5:9, 2:6] = 1
    assert np.abs(heat.grid - expected).max() < 0.11  # resizing blurs the lesion's edge
    assert (heat.photo_size, heat.geometry) == ((180, 180), "squash")
    assert heat.malignancy_probability == pytest.approx(16 / 81, abs=0.01)


def test_what_speaks_against_malignancy_is_not_drawn():
    """A grid below 0 gives an overlay of nothing."""
    assert not drawn(flat(np.full((CELLS, CELLS), -0.5)))[..., 3].any()


def test_a_model_or_photo_that_fails_says_so(tmp_path):
    """The caller's errors are those of scoring a photo; a bundle without a heat map says that."""
    (tmp_path / "a.png").write_bytes(b"no photo")
    with pytest.raises(PhotoError, match=r"^a\.png: this is not a JPEG, PNG or WebP photo"):
        heat_map(darkest_model(), LesionRequest(Photo(path="a.png"), tmp_path))
    old = LesionModel(Bundle(contract(), "0" * 64, DarkestSession()), 1)
    assert darkest_model().has_heat_map and not old.has_heat_map
    message = r"^lesions 0\.0\.1 gives no heat map; use a bundle that lists heat_map among its outputs$"
    with pytest.raises(BundleError, match=message):
        heat_map(old, photo(tmp_path, (90, 90), (10, 10, 30, 30)))


@pytest.mark.parametrize(
    ("size", "shape"), [((400, 300), (192, 256)), ((300, 400), (256, 192)), ((4000, 10), (1, 256)), ((90, 90), (256, 256))]
)
def test_the_overlay_has_the_photos_aspect(size, shape):
    """Its longer side has 256 pixels, whatever the photo's."""
    assert drawn(flat(np.zeros((CELLS, CELLS)), size)).shape == (*shape, 4)


def test_an_overlay_lies_upright(tmp_path):
    """A photo stored on its side (EXIF 6) has its lesion, and so its overlay, where the upright photo shows it."""
    heat = heat_map(darkest_model(), photo(tmp_path, (240, 120), (180, 70, 230, 110), orientation=6))
    assert heat.photo_size == (120, 240)
    rows, columns = np.nonzero(drawn(heat)[..., 3])
    upright = Image.open(tmp_path / "a.png").transpose(Image.Transpose.ROTATE_270).resize((128, 256))
    dark = np.nonzero(np.asarray(upright)[..., 0] < 150)
    assert rows.mean() == pytest.approx(dark[0].mean(), abs=16)
    assert columns.mean() == pytest.approx(dark[1].mean(), abs=16)


@pytest.mark.parametrize(
    ("size", "box", "middle"), [((300, 100), (140, 40, 160, 60), (128, 42)), ((100, 300), (40, 140, 60, 160), (42, 128))]
)
@pytest.mark.parametrize("geometry", ["squash", "centre_crop"])
def test_the_overlay_lies_where_the_model_looked(tmp_path, size, box, middle, geometry):
    """A lesion in the middle is found there either way; a photo cut to its middle has nothing drawn outside of that."""
    heat = heat_map(darkest_model(geometry), photo(tmp_path, size, box))
    alpha = drawn(heat)[..., 3]
    rows, columns = np.nonzero(alpha)
    assert (columns.mean(), rows.mean()) == pytest.approx(middle, abs=3)
    everywhere = drawn(flat(np.full((CELLS, CELLS), 0.5), size, geometry))[..., 3] > 0
    share = everywhere.mean()
    assert share == pytest.approx(1.0 if geometry == "squash" else 1 / 3, abs=0.01)
    if geometry == "centre_crop":
        seen = everywhere.any(axis=0 if size[0] > size[1] else 1)
        assert np.flatnonzero(seen)[0] == pytest.approx(85, abs=1) and np.flatnonzero(seen)[-1] == pytest.approx(170, abs=1)


def test_a_small_fall_is_never_shown_at_full_strength():
    """Two fifths of LEAST_FULL_FALL are drawn as two fifths; from there on the largest fall in the grid is the full strength."""
    grid = np.zeros((CELLS, CELLS))
    for fall, step in ((0.4 * LEAST_FULL_FALL, 2), (LEAST_FULL_FALL, STEPS), (0.8, STEPS)):
        grid[3:6, 3:6] = fall
        assert tuple(drawn(flat(grid))[128, 128]) == _ramp()[step - 1]


@pytest.mark.parametrize("skin", [40, 90, 150, 190])
def test_the_steps_differ_without_colour(skin):
    """Each step is denser and lighter than the one before, and on dark and light skin alike the grey rises from the second on."""
    ramp = _ramp()
    assert len(ramp) == STEPS
    luma = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b, _ in ramp]
    alpha = [a / 255 for *_, a in ramp]
    assert luma == sorted(luma) and alpha == sorted(alpha) and len(set(alpha)) == STEPS
    seen = [a * light + (1 - a) * skin for a, light in zip(alpha, luma, strict=True)]
    assert all(after - before >= 3 for before, after in pairwise(seen[1:]))
    assert seen[-1] - skin >= 30


def test_an_outline_shows_where_half_of_the_most_is():
    """A dark line runs round the strong part and nowhere else, so that it is seen on the lightest skin."""
    grid = np.zeros((CELLS, CELLS))
    grid[4, 4] = 0.6
    pixels = drawn(flat(grid))
    dark = (pixels[..., :3].max(axis=2) < 60) & (pixels[..., 3] > 200)
    assert dark.any() and not dark[128, 128]
    rows, columns = np.nonzero(dark)
    assert rows.min() > 90 and rows.max() < 166 and columns.min() > 90 and columns.max() < 166


def test_no_overlay_is_large():
    """The most restless grid that there can be stays within the limit, and its PNG is a picture without more to it."""
    restless = np.random.default_rng(0).choice([-1.0, 1.0], (CELLS, CELLS))
    content = overlay_png(flat(restless))
    assert len(content) <= LARGEST_BYTES
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode, set(image.info)) == ("PNG", "P", {"transparency"})


def test_the_shipped_model_draws_the_lesion(models_folder: Path):
    """On the sample photo that worries it most, its heat map has something to show, and the overlay is small."""
    shipped = LesionModel(load_bundle(models_folder / "lesions" / live_versions(models_folder)["lesions"]), 1)
    if not shipped.has_heat_map:
        pytest.skip("the live lesion bundle gives no heat map")
    request = LesionRequest(Photo(path="pearly_lump.jpg"), SAMPLES, 60)
    heat = heat_map(shipped, request)
    (score,) = shipped.score([request])
    assert isinstance(score, LesionScore)
    assert heat.malignancy_probability == pytest.approx(score.malignancy_probability, abs=1e-5)
    pixels = drawn(heat)
    assert pixels.shape == (192, 256, 4) and pixels[..., 3].any()
    assert len(overlay_png(heat)) <= LARGEST_BYTES
