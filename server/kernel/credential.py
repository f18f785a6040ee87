"""What a user has to get into a code host."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum


class CredentialKind(StrEnum):
    """What a credential is, and so how it is used and renewed."""

    TOKEN = "TOKEN"  # noqa: S105 - its name
    """A token that works until its host says otherwise."""
    GITHUB_OAUTH = "GITHUB_OAUTH"
    """A GitHub user's, which may end after hours, and is renewed by another one."""
    GITHUB_APP = "GITHUB_APP"
    """A GitHub App's key, by which tokens for one installation are got, each for an hour."""


@dataclass(frozen=True)
class Credential:
    """What its owner may see of one."""

    id: str
    tenant_id: str
    owner_id: str
    host: str
    """A host's name, or an operator's prefix: see the port `Hosts`."""
    kind: CredentialKind
    username: str
    scopes: tuple[str, ...] = ()
    """What the host says that it may do, as far as it says so."""
    expires_at: datetime | None = None
    created_at: datetime | None = None
    last_used_at: datetime | None = None
    """Not to the minute."""
    version: int = 0
    """Counts its changes; 0 for one that is not stored yet."""


@dataclass(frozen=True)
class Material:
    """The secret part, as it is sealed."""

    token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    app_id: str = ""
    installation_id: str = ""
    private_key: str = field(default="", repr=False)
    login: str = ""
    """The digest of the login that brought it, for a client that did not hear so."""

    def encode(self) -> bytes:
        """For the vault. Without what it has not: a server of an earlier version reads it, too."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Material:
        """What `encode` made."""
        return cls(**json.loads(data))


def _no_other() -> bool:
    return False


@dataclass(frozen=True)
class Token:
    """What is shown to a host for one operation."""

    username: str
    secret: str = field(repr=False)
    kind: CredentialKind = CredentialKind.TOKEN
    refused: Callable[[], bool] = field(default=_no_other, repr=False, compare=False)
    """To be called when the host refuses it: whether there may be another one by now, so that it is worth asking for that and trying once
    more."""
