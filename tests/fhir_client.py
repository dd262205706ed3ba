"""fhirpy as the tests' FHIR client. Every answer that it gets must be R4 and keep to the required value sets."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import fhir_examples as fx
from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import BaseFHIRError, OperationOutcome

from inference.service.fhir_validation import _walk

_WRITTEN, _SEEN = "2026-11-23T08:30:00+05:00", "2026-11-23T08:20:00+05:00"  # as the examples have it


def valid(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource, once fhir.resources and the required bindings have nothing against it."""
    kind = resource["resourceType"]
    model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind).model_validate(dict(resource))
    assert list(_walk(model, kind)) == []
    return resource


class Client(SyncFHIRClient):
    """A client for one caller of a service that runs at `url`. Checks whatever comes back, refusals as well."""

    def __init__(self, url: str, authorization: str, **headers: str) -> None:
        """`headers` go with every request, such as If-None-Exist."""
        super().__init__(
            f"{url}/fhir", authorization, extra_headers=headers, requests_config={"timeout": 30, "proxies": {"no_proxy": "127.0.0.1"}}
        )

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = super()._do_request(*args, **kwargs)
        except BaseFHIRError as error:
            valid(outcome_of(error))
            raise
        valid(answer[0] if isinstance(answer, tuple) else answer)
        return answer

    def send(self, bundle: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry out a transaction or batch; the entries of its answer."""
        return list(self.execute("", data=bundle)["entry"])


def outcome_of(error: BaseFHIRError) -> dict[str, Any]:
    """The OperationOutcome that a refusal came with."""
    found: dict[str, Any] = error.resource if isinstance(error, OperationOutcome) else json.loads(str(error))
    return found


def issue_of(error: BaseFHIRError) -> tuple[str, str]:
    """Code and words of the first issue."""
    issue = outcome_of(error)["issue"][0]
    return issue["code"], issue["diagnostics"]


def fresh(resource: dict[str, Any], minutes_ago: float = 0) -> dict[str, Any]:
    """An example as if it had been written just now, or some minutes ago, and observed ten minutes before that."""
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=minutes_ago)
    seen = now - timedelta(minutes=10)
    text = json.dumps(resource).replace(_WRITTEN, now.isoformat()).replace(_SEEN, seen.isoformat())
    found: dict[str, Any] = json.loads(text)
    return found


def referral(number: int, *others: dict[str, Any], mrn: str = "mrn-0017", **of_request: Any) -> dict[str, Any]:
    """A transaction for referral `number` of one patient; both are created only where they are not there yet."""
    name = f"r-{number}"
    person, asked = fx.patient(identifier=[{"system": fx.MRN, "value": mrn}]), fx.request(**of_request)
    asked["identifier"] = [{"system": fx.REFERRALS, "value": name}]
    return fresh(
        fx.bundle(
            fx.entry(person, fx.PATIENT_URL, f"identifier={fx.MRN}|{mrn}"),
            fx.entry(asked, fx.REQUEST_URL, f"identifier={fx.REFERRALS}|{name}"),
            *(fx.entry(one) for one in others),
        )
    )


def id_in(entry: dict[str, Any]) -> str:
    """The id that an entry of an answer says."""
    return str(entry["response"]["location"].split("/")[1])


def shown(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The resource of that type which ends an answer."""
    (found,) = [one["resource"] for one in entries if one.get("resource", {}).get("resourceType") == kind]
    return dict(found)
