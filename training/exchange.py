"""Public visits and photos as case files, so that `nabz rank` can be tried on real input."""

from __future__ import annotations

import json
from pathlib import Path

from training import ktas
from training.skin_data import read_pad_ufes_20


def write_cases(source: str, data: Path, out: Path) -> int:
    """Write the cases of `source` under `data` as JSON Lines, without labels; returns how many.

    Photo paths start from the data set's folder of images: give that to `nabz rank --photos`.
    """
    cases = _ktas(data / ktas.FILE) if source == "ktas" else _pad_ufes_20(data / "pad_ufes_20")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases), encoding="utf-8")
    return len(cases)


def _ktas(path: Path) -> list[dict[str, object]]:
    """Vitals, complaint, age and sex alone: what a health worker would send."""
    return [case.model_copy(update={"arrival": None}).model_dump(mode="json", exclude_defaults=True) for case, _ in ktas.ktas_cases(path)]


def _pad_ufes_20(folder: Path) -> list[dict[str, object]]:
    return [
        {
            "case_id": f"photo-{number}",
            "age_years": record.age_years,
            "photos": [record.photo.model_dump(exclude_defaults=True, exclude={"fitzpatrick"})],
        }
        for number, record in enumerate(read_pad_ufes_20(folder).records, start=1)
    ]
