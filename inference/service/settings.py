"""The service's settings, from the environment (`NABZ_…`) or a `.env` file. Decides nothing itself.

`nabz serve --help` and the README say what each one is for; the descriptions here are their only source.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from inference.errors import PolicyError

LARGEST_UPLOAD = 64 * 1024 * 1024  # what is received stays in memory up to this: photos must not lie in the clear on the disk


class Settings(BaseSettings):
    """Everything that an operator may set. Times in seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="NABZ_", env_file=".env", extra="ignore", frozen=True)

    database_url: str = Field("sqlite:///nabz-data/nabz.db", description="sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME")
    data_dir: Path = Field(Path("nabz-data"), description="folder of the sealed photos and, by default, of the keys")
    key_file: Path | None = Field(None, description="file of the encryption keys (default: keys.json in data_dir); keep a copy elsewhere")
    models: Path | None = Field(None, description="folder of bundles with its serving.toml (default: models/)")
    policy: Path | None = Field(None, description="a queue policy of your own (default: the shipped policy.toml)")
    priors: Path | None = Field(None, description="local priors that nabz-train priors estimated (default: the catalogue's)")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")

    auth_issuer: str | None = Field(None, description="the `iss` that bearer tokens must carry")
    auth_audience: str = Field("nabz", description="the `aud` that bearer tokens must carry")
    auth_keys: str | None = Field(None, description="JSON Web Key Set of the issuer: an https URL or a file")
    auth_role_claim: str = Field("role", description="claim that names the role: clinic, clinician, data_scientist or admin")
    auth_clinic_claim: str = Field("clinic", description="claim that names the caller's clinic")
    dev_issuer: bool = Field(False, description="issue tokens at /dev/token to anyone on this machine: for demos only")

    body_limit_bytes: int = Field(1024 * 1024, gt=0, description="largest body of a request without photos")
    upload_limit_bytes: int = Field(32 * 1024 * 1024, gt=0, le=LARGEST_UPLOAD, description="largest body of a request with photos")
    photos_per_case: int = Field(8, gt=0, description="most photos of one referral")
    requests_per_minute: int = Field(1200, gt=0, description="most requests of one caller in a minute")
    in_flight_limit: int = Field(512, gt=0, description="most requests at a time; more are asked to come back")
    scoring_queue_limit: int = Field(256, gt=0, description="most cases that wait for a score")
    model_timeout_seconds: float = Field(1.5, gt=0, description="after this a case is ranked by rules alone")
    commit_queue_limit: int = Field(1024, gt=0, description="most changes that wait to be stored")
    drain_seconds: int = Field(20, ge=0, description="time for requests in progress when the service is asked to stop")
    retention_days: int = Field(0, ge=0, description="completed referrals are erased after so many days; 0 keeps them")
    monitor_every_hours: float = Field(24.0, ge=0, description="how often drift is looked for in what was stored; 0 never does")
    monitor_days: int = Field(7, gt=0, le=366, description="days of a window of the look for drift")
    monitor_reference: Path | None = Field(
        None, description="reference that `nabz monitor --write-reference` wrote (default: what the live bundles carry)"
    )
    webhook_timeout_seconds: float = Field(5.0, gt=0, description="how long a webhook's receiver may take")

    @property
    def keys(self) -> Path:
        """Where the encryption keys are."""
        return self.key_file or self.data_dir / "keys.json"

    @property
    def photos(self) -> Path:
        """Where the sealed photos are."""
        return self.data_dir / "photos"


def load_settings(**given: object) -> Settings:
    """Settings from the environment, with `given` on top. Raises PolicyError naming the variables that are wrong."""
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        where = "; ".join(f"NABZ_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise PolicyError(f"the settings cannot be used: {where}") from error
