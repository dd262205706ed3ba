"""What is known of public skin data sets before reading them: labels, licence, citation, body-site words.

Facts only; the readers are in skin_data.py. A label's severity runs from 1 (most severe) to 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from inference.bundle import Label

_DERMATOLOGY = "dermatology"

# The fourteen sites of PAD-UFES-20, in the order that the model learns them.
BODY_SITES = (
    "FACE", "NOSE", "LIP", "EAR", "SCALP", "NECK", "CHEST",
    "BACK", "ABDOMEN", "ARM", "FOREARM", "HAND", "THIGH", "FOOT",
)  # fmt: skip

# English, Urdu and Roman Urdu words for each site. A site that the model never saw gets its nearest neighbour
# only where the skin is alike (leg for thigh); shoulder, groin and the like stay unknown.
_WORDS_OF_SITE = {
    "FACE": "face, cheek, forehead, chin, temple, eyelid, chehra, gaal, maatha, چہرہ, گال, ماتھا",
    "NOSE": "nose, naak, nak, ناک",
    "LIP": "lip, lips, mouth, hont, honth, ہونٹ",
    "EAR": "ear, ears, kaan, kan, کان",
    "SCALP": "scalp, head, sar, sir, سر",
    "NECK": "neck, nape, gardan, gala, گردن, گلا",
    "CHEST": "chest, breast, seena, sina, chaati, سینہ, چھاتی",
    "BACK": "back, lower back, upper back, kamar, peeth, کمر, پیٹھ",
    "ABDOMEN": "abdomen, belly, stomach, pait, pet, پیٹ",
    "ARM": "arm, upper arm, upper extremity, bazu, baazu, بازو",
    "FOREARM": "forearm, lower arm, elbow, wrist, kohni, kalai, کہنی, کلائی",
    "HAND": "hand, hands, back of hand, palm, finger, thumb, haath, hath, ungli, ہاتھ, انگلی, ہتھیلی",
    "THIGH": "thigh, leg, knee, shin, calf, lower extremity, lower leg, raan, taang, tang, ران, ٹانگ, گھٹنا",
    "FOOT": "foot, feet, toe, sole, heel, ankle, paon, paaon, pair, پاؤں, پیر",
}
BODY_SITE_WORDS = {word.strip(): site for site, words in _WORDS_OF_SITE.items() for word in words.split(",")}


@dataclass(frozen=True, slots=True)
class SkinSource:
    """A data set as its publisher describes it. `malignant` names the labels that count as cancer."""

    name: str
    task: str
    licence: str
    citation: str
    labels: tuple[Label, ...]
    malignant: tuple[str, ...]
    limits: tuple[str, ...]


def _label(name: str, english: str, urdu: str, icd10: str, severity: int) -> Label:
    return Label(name=name, name_en=english, name_ur=urdu, icd10=icd10, severity=severity, specialty=_DERMATOLOGY)


PAD_UFES_20 = SkinSource(
    name="PAD-UFES-20",
    task="lesions",
    licence="CC BY 4.0",
    citation="Pacheco AGC, Lima GR, Salomão AS, et al. PAD-UFES-20: A skin lesion dataset composed of "
    "patient data and clinical images collected from smartphones. Data in Brief 2020;32:106221. "
    "doi:10.17632/zr7vgbcyr2.1",
    labels=(
        _label("ACK", "Actinic keratosis", "ایکٹینک کیراٹوسس", "L57.0", 4),
        _label("BCC", "Basal cell carcinoma", "بیسل سیل کارسینوما (جلد کا سرطان)", "C44.9", 3),
        _label("MEL", "Melanoma", "میلانوما (جلد کا خطرناک سرطان)", "C43.9", 2),
        _label("NEV", "Naevus", "تل", "D22.9", 5),
        _label("SCC", "Squamous cell carcinoma", "اسکویمس سیل کارسینوما (جلد کا سرطان)", "C44.9", 3),
        _label("SEK", "Seborrhoeic keratosis", "سیبوریک کیراٹوسس (بے ضرر ابھار)", "L82", 5),
    ),
    malignant=("BCC", "MEL", "SCC"),
    limits=(
        "Knows six diagnoses only; infections, leishmaniasis, eczema and all else look like one of them.",
        "Learned from patients of one Brazilian state, nearly all of Fitzpatrick skin types 1 to 3; figures "
        "for types 4 to 6 rest on a handful of photos or none.",
        "The cancers in the data were chosen for biopsy: their share is far above a clinic's, so "
        "probabilities are too high for unselected patients until they are recalibrated there.",
    ),
)

_DERMOSCOPY_LABELS = (
    _label("akiec", "Actinic keratosis or intraepithelial carcinoma", "", "L57.0", 4),
    _label("bcc", "Basal cell carcinoma", "", "C44.9", 3),
    _label("bkl", "Benign keratosis", "", "L82", 5),
    _label("df", "Dermatofibroma", "", "D23.9", 5),
    _label("mel", "Melanoma", "", "C43.9", 2),
    _label("nv", "Melanocytic naevus", "", "D22.9", 5),
    _label("vasc", "Vascular lesion", "", "D18.0", 5),
)
NON_COMMERCIAL = "Learned from data under CC BY-NC 4.0: for non-commercial use only."
_DERMOSCOPY_ONLY = "Learned from dermoscopic images; it is not made for photos taken with a phone's own camera."

HAM10000 = SkinSource(
    name="HAM10000",
    task="lesions-ham10000",
    licence="CC BY-NC 4.0",
    citation="Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source "
    "dermatoscopic images of common pigmented skin lesions. Scientific Data 2018;5:180161. "
    "doi:10.7910/DVN/DBW86T",
    labels=_DERMOSCOPY_LABELS,
    malignant=("akiec", "bcc", "mel"),
    limits=(NON_COMMERCIAL, _DERMOSCOPY_ONLY),
)
DERMA_MNIST = SkinSource(
    name="DermaMNIST",
    task="lesions-dermamnist",
    licence="CC BY-NC 4.0",
    citation="Yang J, Shi R, Wei D, et al. MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D "
    "biomedical image classification. Scientific Data 2023;10:41.",
    labels=_DERMOSCOPY_LABELS,
    malignant=("akiec", "bcc", "mel"),
    limits=(
        NON_COMMERCIAL,
        _DERMOSCOPY_ONLY,
        "Lesions are not known in these data, so held-out figures leak.",
    ),
)
