"""The sketch of what a model learned from: exact where it is small, an estimate where it is large, and never a false alarm at rest."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.case import Case, Vitals
from inference.errors import BundleError
from training.generator import PatientGenerator
from training.knowledge import load_knowledge
from training.seen import KEPT, NEAR_BITS, Sketch, of_patients, of_photo, of_visits, overlap

MEASURED = {"pulse_per_minute": 90, "systolic_mmhg": 120, "spo2_percent": 97}


def prints(*values: int) -> np.ndarray:
    """Fingerprints by hand."""
    return np.array(values, dtype=np.uint64)


def sketched(values: np.ndarray, **kind: bool) -> dict:
    """The contract's `seen` after these cases."""
    sketch = Sketch(**kind)
    sketch.add(values)
    return sketch.as_contract()


def test_a_small_sketch_is_exact():
    """Two of four held-out cases were learned from; the fifth says too little and is not counted."""
    found = overlap(sketched(prints(5, 7, 9)), prints(5, 6, 9, 8, 0))
    assert (found.share.value, found.share.n, found.places) == (0.5, 4, (0, 2))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=60), st.integers(1, 5))
def test_the_order_and_the_parts_of_the_cases_do_not_matter(values, parts):
    """All at once, in parts, backwards and twice: the same fingerprints are kept."""
    whole = sketched(prints(*values))
    other = Sketch()
    for part in np.array_split(prints(*reversed(values)), parts):
        other.add(part)
    other.add(prints(*values))
    assert other.as_contract()["fingerprints"] == whole["fingerprints"]


def test_a_large_sketch_keeps_4096_and_estimates_the_share():
    """Of a hundred thousand learned cases and as many others: a third leaked, and the estimate's interval holds it."""
    random = np.random.default_rng(0)
    learned, others = (random.integers(1, 2**64, 100_000, dtype=np.uint64) for _ in range(2))
    seen = sketched(learned)
    assert len(base64.b64decode(seen["fingerprints"])) == 8 * KEPT
    held_out = np.concatenate([learned[:5000], others[:10_000]])
    share = overlap(seen, held_out).share
    assert share.low < 1 / 3 < share.high and share.n > 400
    assert overlap(seen, others).share.value == 0.0


def test_a_sketch_that_cannot_be_read_is_refused():
    """Rather than taken for one that saw nothing."""
    for broken in (
        {},
        {"fingerprints": "?", "match": "equal", "is_complete": True},
        {"fingerprints": "AAA=", "match": "equal", "is_complete": True},
    ):
        with pytest.raises(BundleError) as caught:
            overlap(broken, prints(1))
        assert str(caught.value) == "the sketch of what the model learned from cannot be read: export it again"


def test_a_visit_is_known_by_age_sex_and_what_was_measured():
    """Another complaint or id is the same visit; another pulse is not; two measurements are too few to tell."""
    case = Case(case_id="a", age_years=40.4, sex="female", vitals=Vitals(**MEASURED))
    same = Case(case_id="b", age_years=40.0, sex="female", complaint="fever", vitals=Vitals(**MEASURED))
    other = Case(case_id="c", age_years=40, sex="female", vitals=Vitals(**{**MEASURED, "pulse_per_minute": 91}))
    few = Case(case_id="d", age_years=40, sex="female", vitals=Vitals(pulse_per_minute=90, spo2_percent=97))
    first, second, third, fourth = of_visits([case, same, other, few]).tolist()
    assert first == second != third
    assert fourth == 0


def test_patients_of_another_seed_are_strangers(catalogue_folder):
    """Nobody of two thousand drawn patients is taken for one of two thousand others; the same ones are all known."""
    generator = PatientGenerator(load_knowledge(catalogue_folder))
    one, other = (generator.draw(2000, np.random.default_rng(seed)) for seed in (1, 2))
    first, second = (of_patients(patients.answers, patients.age_years, patients.sex) for patients in (one, other))
    assert overlap(sketched(first), second).share.value < 0.005
    assert overlap(sketched(first), first).share.value == 1.0
    assert (first > 0).mean() > 0.9


def photo(seed: int) -> Image.Image:
    """A smooth picture of spots."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((300, 300), Image.Resampling.BICUBIC)


def test_a_photo_is_found_again_after_compression_and_scaling():
    """Saved as a poor JPEG at half its size it is the same; other photos are not."""
    pictures = [photo(seed) for seed in range(20)]
    seen = sketched(prints(*(of_photo(picture) for picture in pictures[:10])), is_near=True)
    again = []
    for picture in pictures:
        file = io.BytesIO()
        picture.resize((150, 150)).save(file, "JPEG", quality=50)
        again.append(of_photo(Image.open(file)))
    assert overlap(seen, prints(*again)).places == tuple(range(10))


def test_photos_of_other_patients_are_seldom_alike(shared_data: Path, figure):
    """Of 742 phone photos, each patient's against all others': few look alike in all but NEAR_BITS places, some because they are."""
    import pandas as pd

    table = pd.read_csv(shared_data / "pad_ufes_20" / "metadata.csv", dtype=str)
    images = shared_data / "pad_ufes_20" / "images"
    hashes = prints(*(of_photo(Image.open(images / name)) for name in table["img_id"]))
    patients = table["patient_id"].to_numpy(dtype=str)
    alike = [(np.bitwise_count(hashes ^ one) <= NEAR_BITS)[patients != who].any() for one, who in zip(hashes, patients, strict=True)]
    figure(f"photos alike within {NEAR_BITS} of 64 bits to one of another patient: {sum(alike)} of {len(alike)}")
    assert sum(alike) < 0.05 * len(alike)
