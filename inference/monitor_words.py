"""What a change means and what to do next, in words. It measures nothing and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from inference.monitor_features import DATA, FINDING, FINDINGS, MIX, SET_ASIDE, STATE_OF
from inference.monitor_sample import Column, Sample

GROUPS = ("data quality", "case mix", "model")
LEAST_SHOWN = 5  # cases of one district, below which it is not named
_LEAST_DISTRICT = 20
_MOST = 0.5
_PRIORS = "if it is real, estimate local priors (`nabz-train priors CASES`) and look at the stock and the referral paths it needs"
_FORM = "ask what changed in the form or the app, and correct it there"
_RETRAIN = "check which bundles are live (`nabz verify`), compare levels with clinicians' on fifty cases, then recalibrate or retrain"

_TITLES = {
    "age_years": "age", "sex": "sex", "age_known": "age given", "age_digit": "ages that end in 0 or 5", "district": "district",
    "province": "province", "arrival": "way of arrival", "priority": "referrer's own priority", "photos": "cases with photos",
    "repeat": "cases sent twice", "hour": "hour of arrival", "field_set_aside": "fields that could not be right", "pressures": "systolic above diastolic",
    "script": "script of the complaint", "complaint_words": "words in the complaint", "findings_present": "findings that are present, a case",
    "level": "predicted level", "floor_level": "level by rules", "scored_by": "what ranked the case", "review": "marked for review",
    "emergency_probability": "emergency probability", "critical_probability": "probability of a critical outcome", "condition": "leading condition",
    "outside_scope": "findings that fit no condition", "top_probability": "probability of the leading condition", "set_size": "conditions in the prediction set",
    "urgent_mass": "probability of severe conditions", "lesion": "leading lesion class", "malignancy": "malignancy probability",
    "unfamiliarity": "distance of photos from those learned from", "photo_problem": "problems of photos", "photo_light": "brightness of photos",
    "photo_detail": "sharpness of photos", "photo_ita": "estimated skin tone (ITA)", "photo_tone": "skin tone group",
    "calibration:in_the_large": "emergencies against those predicted", "calibration:slope": "spread of emergency probabilities (calibration slope)",
}  # fmt: skip
_VITAL_NAMES = {
    "respiratory_rate_per_minute": "respiratory rate", "spo2_percent": "SpO2", "systolic_mmhg": "systolic pressure",
    "diastolic_mmhg": "diastolic pressure", "pulse_per_minute": "pulse", "temperature_celsius": "temperature", "consciousness": "consciousness",
}  # fmt: skip
# What a value that no living person shows is likeliest to be, by the vital: bounds of the raw value, and the unit.
_UNITS = {
    "temperature_celsius": (85.0, 115.0, "degrees Fahrenheit"),
    "systolic_mmhg": (4.0, 30.0, "kPa"),
    "diastolic_mmhg": (2.0, 10.0, "kPa"),
    "spo2_percent": (0.0, 1.0, "a share of 1, not percent"),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that words are made of: the change's labels (then, now), quantiles (5, 25, 50, 75, 95 %), the district, the cases."""

    feature: str
    risen: str
    shares: Mapping[str, tuple[float, float]]
    old: tuple[float, ...]
    new: tuple[float, ...]
    where: str
    sample: Sample
    names: Mapping[str, str]


def group_of(family: str) -> str:
    """Whom an alarm is for: data quality, case mix or model."""
    return "case mix" if family in (MIX, FINDINGS) else "data quality" if family == DATA else "model"


_TITLES_BY_HEAD = {
    "finding": "finding {name} ({code})", "vital": "{vital}", "vital_state": "{vital}, measured or missing", "digits": "last digit of the {vital}",
    "understood": "complaints understood ({code})", "lesion_probability": "probability of lesion class {name}",
}  # fmt: skip


def title_of(feature: str, names: Mapping[str, str]) -> str:
    """A feature in words."""
    head, _, tail = feature.partition(":")
    pattern = _TITLES.get(feature) or _TITLES_BY_HEAD.get(head, feature)
    return pattern.format(name=names.get(tail, tail), code=tail, vital=_VITAL_NAMES.get(tail, tail))


def whereabouts(sample: Sample, column: Column, label: str, usual: float) -> str:
    """The district that most of the changed cases come from, if one stands out; nothing where fewer than LEAST_SHOWN would show."""
    district = sample.columns.get("district")
    if district is None or district.labels is None or column is district:
        return ""
    place = district.values[column.rows]
    if column.labels is None:
        return _furthest(column, place, district.labels, usual)
    if label not in column.labels:
        return ""
    hits = np.bincount(place[column.values == column.labels.index(label)], minlength=len(district.labels))
    everybody = np.bincount(place, minlength=len(district.labels))
    most = int(hits.argmax())
    if hits[most] < LEAST_SHOWN or hits[most] < _MOST * hits.sum() or everybody[most] > _MOST * everybody.sum():
        return ""
    return f"{district.labels[most]} ({hits[most]} of {hits.sum()})"


def _furthest(column: Column, place: np.ndarray, districts: tuple[str, ...], usual: float) -> str:
    medians = {at: float(np.median(column.values[place == at])) for at in np.unique(place) if (place == at).sum() >= _LEAST_DISTRICT}
    if len(medians) < 2:
        return ""
    most = max(medians, key=lambda at: abs(medians[at] - usual))
    rest = float(np.median([value for at, value in medians.items() if at != most]))
    if abs(medians[most] - usual) < 2 * abs(rest - usual) or medians[most] == usual:
        return ""
    return f"{districts[most]} (median {medians[most]:g}, elsewhere {rest:g})"


def advice_on(evidence: Evidence) -> tuple[str, str]:
    """What was found, and what to do next."""
    feature = evidence.feature
    head, _, tail = feature.partition(":")
    at = f", mostly at {evidence.where}" if evidence.where else ""
    if feature.startswith(STATE_OF):
        return _vital_state(evidence, tail, at)
    if head == "vital":
        return (
            f"{_moved(evidence)}{at}",
            f"measure one person with two devices{' there' if at else ''}; ask for a new device, a new unit or a new habit",
        )
    if feature.startswith(FINDING):
        return f"{_shares(evidence)}{at}", (
            f"look whether {evidence.names.get(tail, tail)} is ticked, asked or read otherwise than before; {_PRIORS}"
        )
    if head == "understood":
        return f"{_shares(evidence)}{at}", (
            "read ten complaints in this script with `nabz assess`: is the text whole (encoding, keyboard), or are its words new to the lexicon?"
        )
    if head == "calibration":
        return _calibration(evidence)
    words = _moved(evidence) if evidence.old else _shares(evidence)
    return words + at, _ADVICE.get(head, _RETRAIN)


_ADVICE = {
    "digits": "values are rounded or guessed: ask how the measurement is taken and read",
    "pressures": "the two pressures are exchanged in some cases: check the columns of the form or the export",
    "age_digit": "ages are guessed: ask for the date of birth or the card",
    "age_known": "without an age the model sees a stranger: make it a field that is asked",
    "repeat": "the same case comes in several times: look at the sender's retries and idempotency keys",
    "hour": "look at the senders' clocks and time zones, then at opening hours",
    "field_set_aside": f"fields arrive that cannot be read: {_FORM}",
    "complaint_words": f"complaints became shorter, longer or empty: {_FORM}",
    "photo_problem": "look at the photos' problems by clinic, and show the health workers the four photo rules again",
    "photo_light": "photos are darker or brighter: a new phone, a new room or a flash; show the photo rules again",
    "photo_detail": "photos are blurred or recompressed: check the phone's camera and what the app does before it sends",
    "photo_ita": "light, camera or patients changed: compare with the Fitzpatrick type where it is said",
    "photo_tone": "other patients or other light: look at the lesion model's figures for these skin types before you trust it",
    "age_years": f"patients of another age: {_PRIORS}",
    "sex": f"if `unknown` rose, the field is lost on the way; else other patients come: {_FORM}",
    "district": f"a place began or stopped sending: train its staff, look at its devices, and {_PRIORS}",
    "province": f"a province began or stopped sending: {_PRIORS}",
    "arrival": f"another way of arrival: {_FORM}",
    "priority": "referrers choose other priorities than before: talk with them; a priority can only raise a level, so the queue loses its order",
    "photos": f"more or fewer cases have photos: {_FORM}",
    "script": "another language of complaints: look at the share understood, and add words to the lexicon if it fell",
    "findings_present": f"more or fewer findings a case: {_FORM}",
    "condition": f"other diseases are predicted: an outbreak, a season or a change of the form; {_PRIORS}",
    "scored_by": "the models were out of use for some cases: look at /health/ready and the log",
    "review": "count the review reasons (nabz_review_reasons in /metrics): the one that rose names the cause",
    "floor_level": "the rules see other vitals or red flags: look at the vitals' alarms first",
    "outside_scope": "findings fit none of the model's conditions: read ten such cases; a new disease, or findings that are coded otherwise",
    "lesion": "other lesions or other photos: look at the photos' alarms first, then let a dermatologist read twenty",
    "lesion_probability": "other lesions or other photos: look at the photos' alarms first, then let a dermatologist read twenty",
    "malignancy": "other lesions or other photos: look at the photos' alarms first, then let a dermatologist read twenty",
    "unfamiliarity": "photos are unlike those that the model learned from: a new camera, dermatoscope, app or body site; its probabilities mean less",
}


def _vital_state(evidence: Evidence, vital: str, at: str) -> tuple[str, str]:
    name = _VITAL_NAMES.get(vital, vital)
    raw = evidence.sample.columns.get(SET_ASIDE + vital)
    count = evidence.sample.n
    if raw is not None and evidence.risen == "set aside" and len(raw.values) >= LEAST_SHOWN:
        low, high = np.quantile(raw.values, [0.05, 0.95]).tolist()
        words = f"{100 * len(raw.values) / count:.0f} % of {name} values cannot be right: they lie from {low:.3g} to {high:.3g}"
        least, most, unit = _UNITS.get(vital, (np.inf, -np.inf, ""))
        if unit and ((raw.values >= least) & (raw.values <= most)).mean() >= _MOST:
            return (
                f"{words}. Are they {unit}{at}?",
                "check the unit of the device and of the form; send the cases again when it is corrected",
            )
        return words + at, "check the device and the form's columns; send the cases again when it is corrected"
    return (
        f"{_shares(evidence)}{at}",
        f"ask why {name} is measured more rarely or more often: a broken device, no battery, a field that moved",
    )


def _calibration(evidence: Evidence) -> tuple[str, str]:
    old, new = evidence.old[0], evidence.new[0]
    if evidence.feature.endswith("slope"):
        direction = "too extreme" if new < old else "too timid"
        return f"probabilities became {direction}: slope {new:.2f}, was {old:.2f}", _RETRAIN
    direction = "more" if new > old else "fewer"
    return f"{direction} emergencies than before at the same probability: their odds are {np.exp(new - old):.2f} times what they were", (
        "ask first whether outcomes are recorded otherwise; then recalibrate or retrain before levels are trusted, under-triage first"
    )


def _moved(evidence: Evidence) -> str:
    old, new = evidence.old, evidence.new
    return f"median {new[2]:.3g}, was {old[2]:.3g}; 5 to 95 % {new[0]:.3g} to {new[4]:.3g}, was {old[0]:.3g} to {old[4]:.3g}"


def _shares(evidence: Evidence) -> str:
    told = list(evidence.shares.items())[:2]
    return "; ".join(f"{evidence.names.get(label, label)}: {_percent(now)}, was {_percent(then)}" for label, (then, now) in told)


def sentence(words: str) -> str:
    """Words with a full stop, unless they end with a mark of their own."""
    return words if words.endswith(("?", ".", "!")) else words + "."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
