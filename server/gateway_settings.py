"""The settings of a gateway that runs by itself (`python -m server.gateway`). `treadle up` has its own, by the server's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from server import setting_forms as forms
from server.config import LogFormat, Seconds


class GatewaySettings(BaseSettings):
    """Those that the main server has too mean the same here."""

    model_config = SettingsConfigDict(env_prefix="TREADLE_", extra="forbid", frozen=True)

    gateway_listen: Annotated[str, AfterValidator(forms.address)] = Field(
        "127.0.0.1:7430", description="Address of the gateway, `host:port`; in its image `0.0.0.0:7430`."
    )
    gateway_upstream: Annotated[str, AfterValidator(forms.address)] = Field(
        "127.0.0.1:7433",
        description="The main servers' gRPC API, `host:port`; a name is looked up again and again.",
    )
    gateway_egress_listen: Annotated[str, AfterValidator(forms.optional_address)] = Field(
        "",
        description="Address of the listener for workers' connections, `host:port`, which only servers may reach (they find it by "
        "`TREADLE_EGRESS_PROXY`); empty for none.",
    )
    gateway_metrics_listen: Annotated[str, AfterValidator(forms.optional_address)] = Field(
        "", description="Address of Envoy's own Prometheus metrics page, `host:port`; empty for none."
    )
    gateway_origins: Annotated[str, AfterValidator(forms.origins)] = Field("", description="Web pages that may call through it.")
    gateway_tls_certificate: Annotated[Path | None, AfterValidator(forms.readable)] = Field(
        None, description="Certificate chain (PEM); without it, no TLS."
    )
    gateway_tls_key: Annotated[Path | None, AfterValidator(forms.readable)] = Field(
        None, validate_default=True, description="Its private key (PEM)."
    )
    egress_proxy_credential: SecretStr = Field(SecretStr(""), description="What servers show at the listener for workers' connections.")
    egress_networks: Annotated[str, AfterValidator(forms.networks)] = Field(
        "", description="Private networks that workers may be let into, by comma."
    )
    egress_denied_networks: Annotated[str, AfterValidator(forms.networks)] = Field(
        "", description="Networks and addresses that no worker reaches, by comma."
    )
    log_format: LogFormat = Field("console", description="`console` or `json`, what Envoy says among it.")
    heartbeat_seconds: Seconds = Field(15, description="That of the servers: a stream that is silent for longer is not being read.")

    @field_validator("gateway_tls_certificate", "gateway_tls_key", mode="before")
    @classmethod
    def _none_when_empty(cls, value: object) -> object:
        return value or None

    @field_validator("gateway_tls_key")
    @classmethod
    def _both_or_none(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        return forms.both_or_none(key, info.data)
