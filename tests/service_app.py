"""A whole service for tests: the real app on a database of its own, with a client, tokens and a clock that can be moved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from inference.service.app import create_app
from inference.service.dev_issuer import DevIssuer
from inference.service.parts import Parts
from inference.service.settings import Settings

CASE: dict[str, Any] = {
    "age_years": 58,
    "sex": "male",
    "complaint": "seenay mein dard, paseena",
    "vitals": {"pulse_per_minute": 118, "systolic_mmhg": 96, "spo2_percent": 93},
    "district": "Tharparkar",
}
MILD: dict[str, Any] = {"age_years": 25, "sex": "female", "complaint": "kharish"}


@dataclass
class Clock:
    """The service's clock: the real one, moved by `ahead`."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Service:
    """A running service: `client` sends requests, `parts` is its inside."""

    client: TestClient
    parts: Parts
    issuer: DevIssuer
    clock: Clock

    def token(self, role: str, name: str | None = None) -> dict[str, str]:
        """The header of a caller: a clinic by its name, anybody else by their subject."""
        clinic = (name or "mithi") if role == "clinic" else None
        subject = f"{role}-{name or 1}"
        return {"Authorization": f"Bearer {self.issuer.mint(subject, role, clinic)}"}

    def send(self, case: dict[str, Any] | None = None, clinic: str = "mithi", **headers: str) -> dict[str, Any]:
        """Send a case and return the acknowledged referral."""
        answer = self.client.post("/v1/referrals", json=CASE if case is None else case, headers={**self.token("clinic", clinic), **headers})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def act(self, id_: str, action: str, body: dict[str, Any] | None = None, clinician: str = "1") -> Any:
        """Claim, release, complete, … as a clinician; returns the response."""
        return self.client.post(f"/v1/referrals/{id_}/{action}", json=body, headers=self.token("clinician", clinician))


def settings_for(folder: Path, database_url: str | None = None, **given: Any) -> Settings:
    """Settings of a service of its own, with the development issuer on and limits out of the way."""
    values = {"requests_per_minute": 1_000_000, "dev_issuer": True, **given}
    return Settings(database_url=database_url or f"sqlite:///{folder}/nabz.db", data_dir=folder / "data", _env_file=None, **values)


@contextmanager
def running_service(folder: Path, database_url: str | None = None, **given: Any) -> Iterator[Service]:
    """Start the app in this process and wait until its models are loaded."""
    settings, clock = settings_for(folder, database_url, **given), Clock()
    app = create_app(settings, clock)
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50000), raise_server_exceptions=False) as client:
        ends = time.monotonic() + 60
        while client.get("/health/ready").status_code != 200 and time.monotonic() < ends:
            time.sleep(0.02)
        yield Service(client, app.app.app.state.parts, DevIssuer(settings), clock)
