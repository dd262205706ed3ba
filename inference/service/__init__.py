"""The triage service: HTTP, database, FHIR, CDS Hooks. Needs the `service` extra."""
