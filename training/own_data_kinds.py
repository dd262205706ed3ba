"""What kinds of data `nabz-train` learns from, as facts: columns, classes, whose rows belong together, what may not be an input.

Facts only: the readers are own_data.py, the rules of each column own_data_schema.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inference.case import Case, Vitals
from training import ktas, nhamcs
from training.skin_data import HAM_COLUMNS, PAD_COLUMNS

VITALS = tuple(f"vitals.{name}" for name in Vitals.model_fields)
LABELS = tuple(
    f"labels.{name}" for name in ("level", "level_source", "condition", "outcome", "split", "machine_level", "first_impression", "patient")
)
# Nobody knows these when a case is triaged, whatever the file calls them: compared in lower case without blanks and underscores.
AFTER_TRIAGE = frozenset(
    {
        "disposition", "mistriage", "errorgroup", "diagnosisined", "diagnosis", "finaldiagnosis", "lengthofstaymin", "lengthofstay", "ktasdurationmin", "ktasrn",
        "outcome", "finallevel", "biopsed", "dxtype", "discharge", "died", "death", "admitted", "admission", "icuadmission", "lengthofstayhours", "overridelevel",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One kind of data.

    `reads` are the columns that `nabz-train` takes, `optional` those of them that a file may lack; `groups` name whose rows must stay
    on one side of a split, the first that is filled counts; `serious` are the classes that must not be missed. `free_text` columns are
    never shown, only whether they are blank. `beside` are columns that belong to the label, not to the inputs; `reported` are read for
    reports by subgroup and are no input.
    """

    name: str
    words: str
    identity: str
    label: str
    reads: tuple[str, ...]
    groups: tuple[str, ...] = ()
    serious: frozenset[str] = frozenset()
    subgroups: Mapping[str, str] = field(default_factory=dict)
    free_text: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    reported: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    image: str = ""


PATIENTS = Kind(
    "patients",
    "patients in DDXPlus format",
    "",
    "PATHOLOGY",
    ("AGE", "SEX", "PATHOLOGY", "EVIDENCES", "INITIAL_EVIDENCE"),
    subgroups={"age": "AGE", "sex": "SEX"},
    beside=frozenset({"DIFFERENTIAL_DIAGNOSIS"}),
)
PHOTOS = Kind(
    "photos",
    "skin photos with metadata.csv, as PAD-UFES-20",
    "img_id",
    "diagnostic",
    PAD_COLUMNS,
    groups=("patient_id",),
    serious=frozenset({"BCC", "MEL", "SCC"}),
    subgroups={"age": "age", "sex": "gender", "skin type": "fitspatrick", "site": "region"},
    beside=frozenset({"lesion_id"}),
    reported=frozenset({"fitspatrick"}),
    image="img_id",
)
LESIONS = Kind(
    "lesions",
    "skin photos with labels.csv, as HAM10000",
    "image_id",
    "dx",
    HAM_COLUMNS,
    groups=("lesion_id",),
    serious=frozenset({"akiec", "bcc", "mel"}),
    subgroups={"age": "age", "sex": "sex", "site": "localization"},
    image="image_id",
)
CASES = Kind(
    "cases",
    "labelled cases, as nabz export writes them",
    "case_id",
    "labels.level",
    (
        "case_id",
        "age_years",
        "sex",
        "complaint",
        "findings",
        *VITALS,
        "district",
        "province",
        "received_at",
        "labels.level",
        "labels.level_source",
    ),
    groups=("labels.patient", "case_id"),
    serious=frozenset({"1", "2", "3"}),
    subgroups={
        "age": "age_years",
        "sex": "sex",
        "province": "province",
        "district": "district",
        "source of the level": "labels.level_source",
    },
    free_text=frozenset({"complaint"}),
    beside=frozenset(LABELS) - {"labels.level"},
    optional=frozenset(Case.model_fields) | frozenset(VITALS) | frozenset(LABELS),
)
KTAS = Kind(
    "ktas visits",
    "emergency visits with KTAS levels",
    "",
    "KTAS_expert",
    (*ktas.COLUMNS, "NRS_pain", "Pain"),
    serious=frozenset({"1", "2", "3"}),
    subgroups={"age": "Age", "sex": "Sex", "arrival": "Arrival mode"},
    free_text=frozenset({"Chief_complain", "Diagnosis in ED"}),
    optional=frozenset({"NRS_pain", "Pain"}),
)
NHAMCS = Kind(
    "nhamcs visits",
    "emergency visits with NHAMCS-ED columns",
    "",
    "CRITICAL_CARE",
    tuple(nhamcs.COLUMNS),
    serious=frozenset({"1"}),
    subgroups={"age": "AGE", "sex": "SEX", "arrival": "ARREMS", "year": "YEAR"},
)
KINDS = (PATIENTS, PHOTOS, LESIONS, CASES, KTAS, NHAMCS)


def is_after_triage(column: str) -> bool:
    """Whether a column's name says that it was not known at triage."""
    return "".join(letter for letter in column.casefold() if letter.isalnum()) in AFTER_TRIAGE
