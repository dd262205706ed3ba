"""Tests of reading photos, preparing them, encoding the clinical answers, and the photo gate."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from inference.case import Photo
from inference.errors import BundleError, PhotoError
from inference.photo import (
    PIXELS_LIMIT,
    PhotoRecipe,
    clinical_features,
    encode_clinical,
    normalise,
    open_case_photo,
    open_photo,
    open_photo_bytes,
    photo_path,
    photo_pixels,
    read_site,
    shown_name,
)
from inference.photo_file import PARTS_LIMIT, bare_file, exif_orientation
from inference.photo_quality import judge_quality

RECIPE = PhotoRecipe(size=8, geometry="squash", mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
ORIENTATION, GPS, ROTATED_RIGHT = 0x0112, 0x8825, 6


def skin(width: int = 300, height: int = 300, tone: tuple[int, int, int] = (190, 140, 115)) -> Image.Image:
    """A patch of textured skin with a dark lesion in its middle."""
    texture = np.random.default_rng(0).normal(0, 0.06, (height, width, 1))
    pixels = np.array(tone) * (1 + texture)
    rows, columns = np.ogrid[:height, :width]
    lesion = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(width, height) / 6) ** 2
    pixels[lesion] *= 0.5
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def png_of_header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to no data, as a bomb does."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    framed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def codes(image: Image.Image, original_size: tuple[int, int] = (3000, 4000)) -> list[str]:
    """The codes of the problems that the gate finds."""
    return [problem.code for problem in judge_quality(image, original_size).problems]


def test_exif_orientation_is_applied_and_all_metadata_are_dropped(tmp_path: Path) -> None:
    """A photo taken sideways comes out upright, without place or device."""
    image = Image.new("RGB", (40, 20))
    image.paste((255, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED_RIGHT
    exif[GPS] = {1: "N", 2: (31.0, 30.0, 0.0)}
    image.save(tmp_path / "a.jpg", exif=exif, quality=95, comment=b"Ward 3")
    opened = open_photo(tmp_path / "a.jpg").image
    assert opened.size == (20, 40)
    red, _, _ = opened.getpixel((10, 5))  # type: ignore[misc]
    assert red > 200
    assert opened.info == {}
    assert dict(opened.getexif()) == {}


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(tmp_path: Path) -> None:
    """The decoder halves the photo as often as both sides stay long enough; the original size is kept."""
    skin(1600, 1200).save(tmp_path / "a.jpg")
    opened = open_photo(tmp_path / "a.jpg", least_side=290)
    assert opened.image.size == (400, 300)
    assert opened.original_size == (1600, 1200)


def test_reduced_decoding_changes_the_prepared_photo_little(tmp_path: Path) -> None:
    """Decoding at twice the target gives the same pixels as decoding in full, within two grey levels."""
    skin(1600, 1600).filter(ImageFilter.GaussianBlur(2)).save(tmp_path / "a.jpg", quality=95)
    reduced = photo_pixels(open_photo(tmp_path / "a.jpg", 2 * 144).image, 144, "squash").astype(int)
    full = photo_pixels(open_photo(tmp_path / "a.jpg").image, 144, "squash").astype(int)
    assert np.abs(reduced - full).mean() < 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    """Grey, indexed, transparent and print-colour files are all read as RGB."""
    suffix = "jpg" if mode == "CMYK" else "png"
    skin(64, 64).convert(mode).save(tmp_path / f"a.{suffix}")
    assert open_photo(tmp_path / f"a.{suffix}").image.mode == "RGB"


def test_webp_is_accepted(tmp_path: Path) -> None:
    """WebP, which messengers send, is read."""
    skin(64, 64).save(tmp_path / "a.webp")
    assert open_photo(tmp_path / "a.webp").image.size == (64, 64)


def test_a_missing_photo_is_named(tmp_path: Path) -> None:
    """The message names the file, not its folder."""
    with pytest.raises(PhotoError) as caught:
        open_photo(tmp_path / "a.jpg")
    assert str(caught.value) == "a.jpg: there is no such photo in the photo folder; send it again"


def test_a_folder_is_no_photo(tmp_path: Path) -> None:
    """A path that is not a plain file is refused like a missing one."""
    with pytest.raises(PhotoError, match="there is no such photo"):
        open_photo(tmp_path)


def test_a_truncated_photo_is_refused(tmp_path: Path) -> None:
    """A file that was cut short is never half a photo."""
    buffer = io.BytesIO()
    skin().save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(PhotoError) as caught:
        open_photo(tmp_path / "a.jpg")
    assert str(caught.value) == "a.jpg: the photo is broken or was cut short; take or send it again"


@pytest.mark.parametrize("format_name", ["GIF", "BMP", "TIFF", "ICO"])
def test_other_formats_are_refused_whatever_their_name(tmp_path: Path, format_name: str) -> None:
    """What counts is what the file is, not what it is called."""
    skin(64, 64).save(tmp_path / "a.jpg", format_name)
    with pytest.raises(PhotoError) as caught:
        open_photo(tmp_path / "a.jpg")
    assert str(caught.value) == "a.jpg: this is not a JPEG, PNG or WebP photo; convert it to JPEG and send it again"


def test_a_photo_over_the_cap_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """The size in the header is enough to refuse."""
    (tmp_path / "a.png").write_bytes(png_of_header_only(9000, 8000))
    assert PIXELS_LIMIT < 9000 * 8000
    with pytest.raises(PhotoError, match=r"^a\.png: 9000 x 8000 pixels are over 64 megapixels; send it at a lower"):
        open_photo(tmp_path / "a.png")


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_an_error_not_a_warning(tmp_path: Path, side: int) -> None:
    """Pillow warns at one size and raises at another; here both are a PhotoError, and no warning leaks."""
    (tmp_path / "a.png").write_bytes(png_of_header_only(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PhotoError) as caught:
            open_photo(tmp_path / "a.png")
    assert str(caught.value) == "a.png: the photo has far too many pixels; send it at a lower resolution"


def test_opening_in_threads_leaves_the_warning_filters_alone(tmp_path: Path) -> None:
    """Many threads open photos at once; the process's warning filters are as before."""
    skin(64, 64).save(tmp_path / "a.jpg")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: open_photo(tmp_path / "a.jpg"), range(40)))
    assert list(warnings.filters) == before


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_photo_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever a file holds, it is a photo or a PhotoError."""
    path = tmp_path_factory.mktemp("any") / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0" + content)
    with pytest.raises(PhotoError):
        open_photo(path)


@pytest.mark.parametrize("path", ["../a.jpg", "/etc/a.jpg", "b/../../a.jpg"])
def test_a_path_out_of_the_photo_folder_is_refused(path: str) -> None:
    """A case cannot make the service read any other file."""
    with pytest.raises(PhotoError) as caught:
        photo_path(Path("photos"), path)
    expected = "a.jpg: the photo lies outside the photo folder; put it there and name it from there"
    assert str(caught.value) == expected


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file's content."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_our_reading_of_the_orientation_is_pillow_s(kind: str, orientation: int) -> None:
    """The file without metadata, turned by our reading, gives the pixels that Pillow gives for the whole file."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(skin(48, 32), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert (np.asarray(open_photo_bytes("a", content).image) == np.asarray(expected)).all()


def test_xmp_says_the_orientation_where_exif_does_not() -> None:
    """Some editors write it there alone."""
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    for kind in ("JPEG", "WEBP"):
        assert open_photo_bytes("a", encoded(skin(48, 32), kind, xmp=xmp)).image.size == (32, 48)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}, {"restart_marker_blocks": 3}, {"comment": b"x" * 9}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_dropping_metadata_leaves_the_pixels_as_they_are(mode: str, options: dict[str, object]) -> None:
    """Colour space, sampling, scans and restarts all come from the parts that stay."""
    content = encoded(skin(61, 83).convert(mode), "JPEG", **(options if mode == "RGB" else {}))
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert (np.asarray(open_photo_bytes("a", content).image) == expected).all()


def test_a_bare_file_has_no_metadata_and_nothing_behind_its_end() -> None:
    """Whatever a decoder could stumble over has gone before it looks."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for kind in ("JPEG", "PNG", "WEBP"):
        content = encoded(skin(48, 32), kind, exif=exif, icc_profile=b"ICC of the ward", xmp=b"<xmp/>") + b"PK behind the end"
        bare = bare_file(content)
        assert bare.orientation == 6
        assert not any(trace in bare.content for trace in (b"Exif", b"EXIF", b"eXIf", b"ICC", b"<xmp/>", b"behind"))


def test_a_photo_has_no_more_parts_than_photos_have() -> None:
    """Millions of comments took minutes and gigabytes to read; now they are counted first."""
    comment = b"\xff\xfe\x00\x02"
    content = encoded(skin(16, 16), "JPEG")
    assert open_photo_bytes("a", content[:2] + comment * (PARTS_LIMIT - 100) + content[2:]).image.size == (16, 16)
    with pytest.raises(PhotoError, match=r"^a: the photo is broken or was cut short"):
        open_photo_bytes("a", content[:2] + comment * PARTS_LIMIT + content[2:])


@given(st.binary(max_size=80))
def test_no_exif_raises_anything(exif: bytes) -> None:
    """Whatever it holds, there is an orientation."""
    assert exif_orientation(b"II*\0\x08\0\0\0" + exif) in range(1, 9)
    assert exif_orientation(exif) in range(1, 9)


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "a\0b.jpg", "\ud800.jpg"])
def test_a_name_that_no_disk_takes_is_a_photo_error(tmp_path: Path, name: str) -> None:
    """A case with such a name loses its photo, and not the queue its ranking."""
    with pytest.raises(PhotoError, match=r"the photo cannot be read|there is no such photo"):
        open_photo(tmp_path / name)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a/b.jpg", "b.jpg"),
        ("C:\\Users\\ayesha\\b.jpg", "b.jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("a\r\nb\x1b[2J", "ab[2J"),
        ("تصویر.jpg", "تصویر.jpg"),
        ("", "photo"),
        ("x/", "x"),
        ("a" * 500, "a" * 99 + "…"),
    ],
)
def test_a_name_is_shown_as_one_short_line(path: str, shown: str) -> None:
    """No folder, no control characters, nothing that turns the text around it."""
    assert shown_name(path) == shown


def test_photos_come_from_a_folder_or_from_a_mapping(tmp_path: Path) -> None:
    """Both give the same pixels, and a name that is not there is told alike; a mapping never reads a file."""
    content = encoded(skin(48, 32), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    first = open_case_photo(tmp_path, "a.png").image
    second = open_case_photo({"a.png": content}, "a.png").image
    assert (np.asarray(first) == np.asarray(second)).all()
    for photos in (tmp_path, {}):
        with pytest.raises(PhotoError) as caught:
            open_case_photo(photos, "b.png")
        assert str(caught.value) == "b.png: there is no such photo in the photo folder; send it again"
    with pytest.raises(PhotoError, match="there is no such photo"):
        open_case_photo({}, str(tmp_path / "a.png"))


def test_a_photo_that_would_fill_the_memory_is_refused_by_its_header() -> None:
    """A PNG and a progressive JPEG are held whole; an ordinary JPEG of the same size is decoded at half of it."""
    png = encoded(Image.new("1", (6000, 4200)), "PNG")
    with pytest.raises(PhotoError) as caught:
        open_photo_bytes("a.png", png)
    assert str(caught.value) == (
        "a.png: a PNG file of 6000 x 4200 pixels takes too much memory or time; send it as an ordinary JPEG or at a lower resolution"
    )
    grey = Image.new("L", (6000, 4200))
    with pytest.raises(PhotoError, match="a JPEG file of 6000 x 4200 pixels takes too much"):
        open_photo_bytes("a.jpg", encoded(grey, "JPEG", progressive=True))
    assert open_photo_bytes("a.jpg", encoded(grey, "JPEG")).image.size == (3000, 2100)


def test_squash_keeps_everything_and_centre_crop_keeps_the_middle() -> None:
    """A wide photo of three colours keeps all three when squashed and only the middle one when cropped."""
    image = Image.new("RGB", (24, 8), (255, 0, 0))
    image.paste((0, 255, 0), (8, 0, 16, 8))
    assert photo_pixels(image, 8, "squash")[4, 0].tolist() == [255, 0, 0]
    assert (photo_pixels(image, 8, "centre_crop") == [0, 255, 0]).all()


def test_normalised_photos_are_channels_first() -> None:
    """Pixels [N, S, S, 3] become float32 [N, 3, S, S], (value - mean) / std."""
    pixels = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    pixels[..., 2] = 255
    values = normalise(pixels, RECIPE)
    assert values.shape == (1, 3, 8, 8)
    assert values.dtype == np.float32
    assert values[0, 2, 0, 0] == 1.0
    assert values[0, 0, 0, 0] == np.float32(-127 / 128)


def test_the_recipe_survives_the_contract() -> None:
    """What the contract carries is read back as it was."""
    assert PhotoRecipe.from_contract(RECIPE.as_contract()) == RECIPE


@pytest.mark.parametrize("change", [{"geometry": "stretch"}, {"std": [0, 1, 1]}, {"mean": [1]}, {"size": None}])
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    """A contract with wrong preprocessing facts gives a BundleError, not wrong pixels."""
    with pytest.raises(BundleError, match="preprocessing"):
        PhotoRecipe.from_contract(RECIPE.as_contract() | change)


WORDS = {
    "arm": "ARM",
    "forearm": "FOREARM",
    "بازو": "ARM",
    "back of hand": "HAND",
    "back": "BACK",
    "hand": "HAND",
}


def test_unknown_answers_are_all_zeros_and_no_is_not() -> None:
    """Unknown is not "no": it sets nothing, and "no" sets its own feature."""
    sites = ("ARM", "HAND")
    names = clinical_features(sites)
    unknown = encode_clinical(Photo(path="a.jpg"), None, sites, WORDS)
    said_no = encode_clinical(Photo(path="a.jpg", itch=False), None, sites, WORDS)
    assert len(names) == len(unknown) == 16
    assert not unknown.any()
    assert said_no[names.index("itch=no")] == 1.0
    assert said_no.sum() == 1.0


def test_known_answers_set_their_own_feature() -> None:
    """Age is centred on 50 years in steps of 25, with its own "known" flag; site and answers are one-hot."""
    sites = ("ARM", "HAND")
    photo = Photo(path="a.jpg", body_site="Left arm", grew=True, fitzpatrick=5)
    values = dict(zip(clinical_features(sites), encode_clinical(photo, 75, sites, WORDS).tolist(), strict=True))
    assert {name: value for name, value in values.items() if value} == {
        "age": 1.0,
        "age_known": 1.0,
        "body_site=ARM": 1.0,
        "grew=yes": 1.0,
    }


def test_skin_type_is_never_an_input() -> None:
    """Two photos that differ in Fitzpatrick type alone are encoded alike."""
    light, dark = (encode_clinical(Photo(path="a", fitzpatrick=t), 40, ("ARM",), WORDS) for t in (1, 6))
    assert (light == dark).all()


@pytest.mark.parametrize(
    ("said", "site"),
    [
        ("ARM", "ARM"),
        ("right forearm", "FOREARM"),
        ("back_of_hand", "HAND"),
        ("upper back", "BACK"),
        ("بازو", "ARM"),
        ("elbow", None),
        ("armada", None),
        (None, None),
    ],
)
def test_body_sites_are_read_by_whole_words(said: str | None, site: str | None) -> None:
    """The longest known word counts; a part of a word never does."""
    assert read_site(said, WORDS) == site


@pytest.mark.parametrize("tone", [(235, 200, 180), (190, 140, 115), (120, 80, 60), (75, 48, 38), (58, 38, 32)])
def test_skin_of_every_tone_passes_the_gate(tone: tuple[int, int, int]) -> None:
    """Sharp, lit skin passes from the lightest to the darkest tone."""
    assert judge_quality(skin(tone=tone), (3000, 3000)).ok


def test_each_failure_is_told_with_its_advice_in_both_languages() -> None:
    """Blur, darkness, glare, a thumbnail and a photo without skin each give their code and advice."""
    good = skin()
    assert codes(good.filter(ImageFilter.GaussianBlur(6))) == ["blurred"]
    assert codes(ImageEnhance.Brightness(good).enhance(0.1)) == ["too_dark"]
    assert codes(Image.new("RGB", (300, 300), (252, 250, 251))) == ["too_bright"]
    assert codes(good, (100, 300)) == ["too_small"]
    assert codes(skin(tone=(90, 130, 190))) == ["no_skin"]
    for problem in judge_quality(Image.new("RGB", (9, 9), (90, 130, 190)), (9, 9)).problems:
        assert problem.advice_en.endswith(".")
        assert problem.advice_ur.endswith("۔")


def test_a_photo_of_one_pixel_is_judged_without_an_error() -> None:
    """The gate has an answer for any size."""
    assert "too_small" in codes(Image.new("RGB", (1, 1), (200, 150, 120)), (1, 1))


def test_real_photos_are_not_refused(shared_data: Path) -> None:
    """At most one in twenty of PAD-UFES-20's photos (every tenth is looked at) is sent back; `nabz-train photo-gate` has the figures."""
    paths = sorted((shared_data / "pad_ufes_20" / "images").iterdir())[::10]
    opened = [open_photo(path, 288) for path in paths]
    refused = [not judge_quality(photo.image, photo.original_size).ok for photo in opened]
    assert np.mean(refused) <= 0.05
