"""Settings and a database whose every sealed column holds something that its vault sealed, for tests of keys and of backups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from queue_database import ASMA, NOW, POLICY, referral
from sqlalchemy import Engine, select

from inference.service import store
from inference.service.callers import Who
from inference.service.database import Unit, transact
from inference.service.photo_store import PhotoStore, clean_photo
from inference.service.rotation import SEALED
from inference.service.settings import Settings
from inference.service.tables import feedback, fhir_resources, webhooks
from inference.service.vault import Vault


def settings_of(folder: Path, database_url: str) -> Settings:
    """Settings of a service in a folder of its own."""
    return Settings(database_url=database_url, data_dir=folder / "data", _env_file=None)


def fill(engine: Engine, vault: Vault, ids: list[str]) -> None:
    """Referrals with a patient, a note and a FHIR resource each; and one webhook and one feedback for the first."""

    def work(unit: Unit) -> None:
        for id_ in ids:
            new = referral(
                id_,
                summary=vault.seal(f"summary of {id_}".encode(), f"referrals.summary:{id_}"),
                patient=vault.seal(f"patient of {id_}".encode(), f"referrals.patient:{id_}"),
                content=vault.seal(f"content of {id_}".encode(), f"assessments:{id_}:1"),
            )
            store.insert_referral(unit, new, Who("sender", "clinic", "mithi"), POLICY, NOW)
            unit.add(
                fhir_resources, type="Patient", id=id_, clinic="mithi", referral_id=id_, version=1, at_us=0,
                content=vault.seal(f"resource of {id_}".encode(), f"fhir:Patient:{id_}"),
            )  # fmt: skip

    def note(unit: Unit) -> None:
        for id_ in ids:
            store.add_note(unit, id_, ASMA, NOW, vault.seal(f"note on {id_}".encode(), f"events:{id_}"))
        unit.add(
            webhooks, id=f"w-{ids[0]}", url="http://127.0.0.1/", secret=vault.seal(b"secret", f"webhooks:w-{ids[0]}"),
            is_active=True, delivered=0, failures=0, next_try_us=0,
        )  # fmt: skip
        unit.add(feedback, at_us=0, actor="asma", service="nabz-triage", content=vault.seal(b"feedback", "feedback:nabz-triage"))

    key = vault.mac_key("audit")
    transact(engine, work, key)
    transact(engine, note, key)


def opened_values(engine: Engine, vault: Vault) -> list[tuple[str, str, bytes]]:
    """Every sealed value there is, opened."""

    def work(unit: Unit) -> list[tuple[str, str, bytes]]:
        found: list[tuple[str, str, bytes]] = []
        for table, column, context in SEALED:
            for row in unit.connection.execute(select(table)):
                sealed: Any = row._mapping[column]
                if sealed is not None:
                    found.append((f"{table.name}.{column}", context(row), vault.unseal(sealed, context(row))))
        return sorted(found)

    return transact(engine, work, vault.mac_key("audit"))


def keep_photo(settings: Settings, vault: Vault, red: int) -> str:
    """Store a photo of one colour; its name."""
    file = settings.data_dir.parent / f"{red}.png"
    Image.new("RGB", (16, 16), (red, 0, 0)).save(file)
    return PhotoStore(settings.photos, vault).put(clean_photo(file.read_bytes(), "a.png"))
