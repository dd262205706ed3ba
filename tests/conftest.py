"""Fixtures that several test files use."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres import NOT_INSTALLED, PostgresServer, find_binaries

ROOT = Path(__file__).resolve().parent.parent
LOGGERS = ("nabz", "nabz.access", "nabz.errors", "nabz.service", "uvicorn", "uvicorn.error", "uvicorn.access")


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a figure that a test measured; all of them stand at the end of the run."""
    return lambda line: request.node.user_properties.append(("measured", line))  # travels with the report, also between processes


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, line in report.user_properties:
                    terminalreporter.write_line(f"{name}: {line}")


@pytest.fixture(autouse=True, scope="module")
def _logging_as_python_starts_it() -> None:
    """Each file of tests begins without what a library did to logging in another file of the same process."""
    for name in ("", *LOGGERS):
        logger = logging.getLogger(name)
        for handler in [one for one in logger.handlers if type(one).__module__ != "_pytest.logging"]:
            logger.removeHandler(handler)
        logger.propagate, logger.disabled = True, False


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the checkout (or at NABZ_DATA); tests that need it are skipped by name without it."""
    folder = Path(os.environ.get("NABZ_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets at {folder} (or NABZ_DATA)")
    return folder


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The shipped bundles."""
    return ROOT / "models"


@pytest.fixture(scope="session")
def catalogue_folder() -> Path:
    """The shipped catalogue."""
    return ROOT / "data" / "catalogue"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL server of this test session's own; tests that need it are skipped by name without PostgreSQL."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(NOT_INSTALLED)
    server = PostgresServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A running Chromium; tests that need it are skipped by name without one."""
    from browser_support import chromium

    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def demo_service(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`nabz serve --demo` with the sample referrals, for all browser tests that leave the queue as it is."""
    from browser_support import served

    with served(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture
def own_service(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """`nabz serve --demo` of this test's own."""
    from browser_support import served

    with served(tmp_path) as running:
        yield running


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test's own."""
    with postgres_server.fresh_database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of this test's own, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'nabz.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def queue_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database of the newest version with nothing in it, once of each kind (PostgreSQL's is emptied for each test)."""
    from queue_database import emptied, migrated

    if request.param == "sqlite":
        return migrated(f"sqlite:///{tmp_path / 'nabz.db'}")
    return emptied(request.getfixturevalue("postgres_server"))


@pytest.fixture
def tiny_release(tmp_path: Path) -> Path:
    """Two conditions and five evidences in the DDXPlus release format, with three patients.

    Half of the flu's patients have pain (`E_2`); the rest were never asked about it and have its questions' defaults.
    """
    folder = tmp_path / "tiny_release"
    folder.mkdir()
    shared = {"question_en": "?", "is_antecedent": False, "default_value": 0, "value_meaning": {}, "possible-values": []}
    evidences = {
        "E_1": {**shared, "name": "E_1", "code_question": "E_1", "data_type": "B"},
        "E_2": {**shared, "name": "E_2", "code_question": "E_2", "data_type": "B"},
        "E_3": {**shared, "name": "E_3", "code_question": "E_2", "data_type": "C", "possible-values": [0, 1, 2]},
        "E_4": {
            **shared,
            "name": "E_4",
            "code_question": "E_2",
            "data_type": "M",
            "possible-values": ["V_none", "V_a", "V_b"],
            "default_value": "V_none",
        },
        "E_5": {**shared, "name": "E_5", "code_question": "E_5", "data_type": "B", "is_antecedent": True},
    }
    conditions = {
        name: {"condition_name": name, "cond-name-eng": name, "icd10-id": "J00", "severity": severity, "symptoms": {}, "antecedents": {}}
        for name, severity in (("flu", 2), ("cold", 4))
    }
    statistics = {
        "flu": {
            "prior": 0.2,
            "age": {"newborn": 0.0},
            "findings": {
                "E_1": {"1": 0.8},
                "E_2": {"1": 0.5},
                "E_3": {"0": 0.5, "1": 0.2, "2": 0.3},
                "E_4": {"V_a": 0.5, "V_none": 0.5},
                "E_5": {"1": 0.3},
            },
        },
        "cold": {"prior": 0.8, "sex": {"female": 3.0, "male": 1.0}, "findings": {"E_1": {"1": 0.1}, "E_5": {"1": 0.3}}},
    }
    for name, content in (("release_evidences", evidences), ("release_conditions", conditions), ("train_statistics", statistics)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "patients_all49.csv").write_text(
        "AGE,DIFFERENTIAL_DIAGNOSIS,SEX,PATHOLOGY,EVIDENCES,INITIAL_EVIDENCE\n"
        "30,\"[['flu', 0.6], ['cold', 0.2], ['gout', 0.2]]\",F,flu,\"['E_1', 'E_2', 'E_3_@_2', 'E_4_@_V_a', 'E_4_@_V_b']\",E_1\n"
        '70,"[]",M,cold,"[\'E_5\']",E_5\n'
        "1,,X,flu,\"['E_2']\",E_2\n",
        encoding="utf-8",
    )
    return folder
