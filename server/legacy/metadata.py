"""`.session-metadata.json` of the old system: the coding worker's shape, and the GitHub worker's with fewer fields."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

_SSH = re.compile(r"(?:ssh://)?git@([\w.-]+)[:/](?!/)([\w./-]+)")
_MAX_TEXT = 4096
_FIRST = datetime(2020, 1, 1, tzinfo=UTC)
"""Before there was anything of the old system."""


@dataclass(frozen=True)
class Metadata:
    """What it says, as far as it is of use; empty for what it does not say, or says in another form. A stranger's words."""

    repository_url: str = ""
    """Without user name and password: old ones may hold a token."""
    base_branch: str = ""
    branch: str = ""
    title: str = ""
    cloned_path: str = ""
    """Where the repository is (layout.py)."""
    repository_name: str = ""
    conversation_id: str = ""
    """Of the newest conversation with the agent."""
    provider: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> Metadata:
        """Takes whatever there is. Errors: ValueError when it is no JSON object."""
        try:
            said = json.loads(text)
        except RecursionError:
            raise ValueError("the metadata is nested too deep") from None
        if not isinstance(said, dict):
            raise ValueError("the metadata is no JSON object")  # noqa: TRY004 - of a text, not of an argument
        github = said.get("github")
        github = github if isinstance(github, dict) else {}
        owner, name = _text(said, "repositoryOwner"), _text(said, "repositoryName")
        url = _text(github, "repoUrl") or (f"https://github.com/{owner}/{name}" if owner and name else "")
        return cls(
            repository_url=without_credentials(url),
            base_branch=_text(github, "baseBranch"),
            branch=_text(said, "branch"),
            title=_text(said, "sessionTitle"),
            cloned_path=_text(github, "clonedPath"),
            repository_name=name,
            conversation_id=_text(said, "providerSessionId"),
            provider=_text(said, "provider"),
            created_at=_time(_text(said, "createdAt")),
            updated_at=_time(_text(said, "updatedAt") or _text(said, "lastModified")),
        )


def without_credentials(url: str) -> str:
    """The URL as `https`, without what stands before an `@`; empty when it is none."""
    ssh = _SSH.fullmatch(url)
    if ssh:
        return f"https://{ssh[1]}/{ssh[2]}"
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.scheme and parts.netloc else ""


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable() else ""


def _time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo and _FIRST < moment < datetime.now(UTC) else None
