"""Public data as case files: what a health worker would send, and no label."""

from __future__ import annotations

import json

from inference.casefile import read_cases
from training.exchange import write_cases


def test_ktas_visits_become_cases_without_their_levels(shared_data, tmp_path):
    """Every visit reads back without a problem, and no case says how the patient came or what the expert thought."""
    out = tmp_path / "ktas.jsonl"
    count = write_cases("ktas", shared_data, out)
    assert count == len(out.read_text(encoding="utf-8").splitlines())
    assert all(reading.problems == () for reading in read_cases(out))
    assert not any({"arrival", "priority", "level"} & json.loads(line).keys() for line in out.read_text(encoding="utf-8").splitlines())


def test_photos_become_cases_without_diagnosis_or_skin_type(shared_data, tmp_path):
    """Each case has one photo that exists in the data set's folder of images."""
    out = tmp_path / "photos.jsonl"
    write_cases("pad_ufes_20", shared_data, out)
    readings = read_cases(out)
    assert all(reading.problems == () and len(reading.case.photos) == 1 for reading in readings)
    assert all((shared_data / "pad_ufes_20" / "images" / reading.case.photos[0].path).is_file() for reading in readings[:20])
    assert all(reading.case.photos[0].fitzpatrick is None for reading in readings)
