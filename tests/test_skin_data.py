"""Tests of the skin readers and of splits that cannot leak."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.errors import DataError
from inference.photo import read_site
from training import skin_data
from training.skin_data import check_no_group_is_split, grouped_folds, read_skin_data
from training.skin_sources import BODY_SITE_WORDS, BODY_SITES

PAD_HEADER = "patient_id,lesion_id,age,region,fitspatrick,gender,biopsed,itch,grew,hurt,changed,bleed,elevation,img_id,diagnostic"
PAD_ROW = "P1,7,61,FACE,3.0,MALE,True,True,UNK,False,,False,True,a.jpg,BCC"


def write_pad(folder: Path, *rows: str, header: str = PAD_HEADER) -> Path:
    """A data set in PAD-UFES-20's format, with a small image for each name that ends in .jpg."""
    (folder / "images").mkdir(parents=True)
    (folder / "metadata.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    for row in rows:
        for name in row.split(","):
            if name.endswith(".jpg"):
                Image.new("RGB", (8, 8)).save(folder / "images" / name)
    return folder


def test_pad_ufes_20_is_read_with_unknown_kept_apart_from_no(tmp_path: Path) -> None:
    """UNK and an empty answer are unknown; True and False are themselves."""
    data = read_skin_data(write_pad(tmp_path / "pad", PAD_ROW))
    (record,) = data.records
    assert data.source.name == "PAD-UFES-20"
    assert (record.label, record.group, record.age_years) == ("BCC", "P1", 61.0)
    photo = record.photo
    assert (photo.itch, photo.grew, photo.hurt, photo.changed) == (True, None, False, None)
    assert (photo.path, photo.body_site, photo.fitzpatrick) == ("a.jpg", "face", 3)
    assert (record.folder / photo.path).is_file()


def test_columns_that_give_the_diagnosis_away_are_never_read() -> None:
    """No leaking column of PAD-UFES-20 is named anywhere in the reader's code."""
    tree = ast.parse(Path(skin_data.__file__).read_text(encoding="utf-8"))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    leaking = {
        "biopsed", "gender", "smoke", "drink", "pesticide", "diameter_1", "diameter_2", "skin_cancer_history",
        "cancer_history", "has_piped_water", "has_sewage_system", "background_father", "background_mother",
    }  # fmt: skip
    assert not strings & leaking


def test_leaking_columns_do_not_change_what_is_read(tmp_path: Path) -> None:
    """Two files that differ in gender and biopsy alone give the same records."""
    one = read_skin_data(write_pad(tmp_path / "one", PAD_ROW)).records[0]
    two = read_skin_data(write_pad(tmp_path / "two", PAD_ROW.replace("MALE,True", ",False"))).records[0]
    assert (one.photo, one.age_years, one.label) == (two.photo, two.age_years, two.label)


def test_ham10000_is_grouped_by_lesion(tmp_path: Path) -> None:
    """Images of one lesion share a group, and an unknown localisation is unknown."""
    folder = tmp_path / "ham"
    (folder / "images").mkdir(parents=True)
    rows = ["HAM_1,ISIC_1,bkl,histo,80.0,male,scalp,x", "HAM_1,ISIC_2,bkl,histo,,male,unknown,x"]
    text = "\n".join(["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset", *rows])
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    for name in ("ISIC_1", "ISIC_2"):
        Image.new("RGB", (8, 8)).save(folder / "images" / f"{name}.jpg")
    first, second = read_skin_data(folder).records
    assert first.group == second.group == "HAM_1"
    assert (first.photo.body_site, second.photo.body_site) == ("scalp", None)
    assert (first.age_years, second.age_years) == (80.0, None)


def test_medmnist_groups_identical_images(tmp_path: Path) -> None:
    """The same image in train and test is one group, so that no fold can have it twice."""
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    arrays = {f"{part}_images": image + shade for part, shade in (("train", 0), ("val", 9), ("test", 0))}
    labels = {f"{part}_labels": np.array([[label]]) for part, label in (("train", 1), ("val", 5), ("test", 1))}
    np.savez(tmp_path / "dermamnist.npz", **{name: a.astype(np.uint8) for name, a in (arrays | labels).items()})
    train, val, test = read_skin_data(tmp_path / "dermamnist.npz").records
    assert (train.label, val.label) == ("bcc", "nv")
    assert train.group == test.group != val.group


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("UNK", "maybe"), "a.jpg: grew is 'maybe'; expected True, False, UNK or nothing"),
        ((",61,", ",240,"), "a.jpg: age is '240'; expected a number from 0 to 125, or nothing"),
        ((",61,", ",old,"), "a.jpg: age is 'old'; expected a number from 0 to 125, or nothing"),
        (("3.0", "9"), "a.jpg: fitspatrick is '9'; expected a number from 1 to 6, or nothing"),
    ],
)
def test_an_impossible_value_names_the_image(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """A wrong answer, age or skin type says which image, what was found and what was expected."""
    with pytest.raises(DataError) as caught:
        read_skin_data(write_pad(tmp_path / "pad", PAD_ROW.replace(*change)))
    assert str(caught.value) == message


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    """A file without a needed column says which."""
    with pytest.raises(DataError, match=r"columns itch are missing; expected patient_id, img_id"):
        read_skin_data(write_pad(tmp_path / "pad", PAD_ROW, header=PAD_HEADER.replace("itch", "itches")))


def test_missing_images_unknown_labels_and_doubled_rows_are_named(tmp_path: Path) -> None:
    """Each kind of broken set is refused with the ids that are wrong."""
    folder = write_pad(tmp_path / "one", PAD_ROW)
    (folder / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 records have no image file; put the images in images/: a\.jpg$"):
        read_skin_data(folder)
    with pytest.raises(DataError, match=r"1 records have a label that is none of ACK, .*: a\.jpg$"):
        read_skin_data(write_pad(tmp_path / "two", PAD_ROW.replace("BCC", "XYZ")))
    with pytest.raises(DataError, match=r"img_id occurs twice: a\.jpg; keep one row an image$"):
        read_skin_data(write_pad(tmp_path / "three", PAD_ROW, PAD_ROW))
    with pytest.raises(DataError, match=r"1 records have no patient or lesion id"):
        read_skin_data(write_pad(tmp_path / "four", PAD_ROW.replace("P1", "")))


def test_a_folder_with_no_data_says_what_was_expected(tmp_path: Path) -> None:
    """An empty folder is not taken for any format."""
    with pytest.raises(DataError, match=r"no skin data found; expected a folder with metadata\.csv"):
        read_skin_data(tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 19)), min_size=40, max_size=80), st.integers(0, 9))
def test_no_patient_is_ever_in_two_folds(pairs: list[tuple[int, int]], seed: int) -> None:
    """Whatever the labels and patients, each patient is in one fold and each image in exactly one."""
    labels, groups = (np.array(column) for column in zip(*pairs, strict=True))
    if len(np.unique(groups)) < 3 or np.bincount(labels).max() < 3:
        return
    fold_of = grouped_folds(labels, groups, 3, seed)
    assert set(fold_of) <= {0, 1, 2}
    for group in np.unique(groups):
        assert len(set(fold_of[groups == group])) == 1


def test_a_split_that_leaks_is_caught() -> None:
    """The check fails on a split by image, and names the patient."""
    with pytest.raises(DataError) as caught:
        check_no_group_is_split(np.array(["P1", "P1", "P2"]), np.array([0, 1, 1]))
    assert str(caught.value) == "the split leaks: 1 patients are in several folds, such as P1"


def test_too_few_patients_for_the_folds() -> None:
    """Two patients cannot make three folds."""
    with pytest.raises(DataError, match="2 patients cannot be split into 3 folds"):
        grouped_folds(np.array([0, 1, 0]), np.array(["a", "b", "b"]), 3, 0)


def test_every_site_word_means_a_site_that_the_model_learns() -> None:
    """The words of three languages lead to learned sites, and each site knows its own name."""
    assert set(BODY_SITE_WORDS.values()) == set(BODY_SITES)
    for site in BODY_SITES:
        assert read_site(site, BODY_SITE_WORDS) == site


def test_the_real_data_are_read_and_split(shared_data: Path) -> None:
    """PAD-UFES-20 as shared: 742 photos of 562 patients, in five folds without a leak."""
    data = read_skin_data(shared_data / "pad_ufes_20")
    assert len(data.records) == 742
    assert len(set(data.groups)) == 562
    assert all(read_site(record.photo.body_site, BODY_SITE_WORDS) for record in data.records)
    fold_of = grouped_folds(data.labels, data.groups, 5, 0)
    for fold in range(5):
        assert not set(data.groups[fold_of == fold]) & set(data.groups[fold_of != fold])
