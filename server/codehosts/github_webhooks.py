"""GitHub's webhooks: the port `WebhookReader`.

Sources, of https://docs.github.com/en/webhooks: "Validating webhook deliveries" (HMAC-SHA256 over the body, in X-Hub-Signature-256),
"Webhook events and payloads" (headers and fields), "Redelivering webhooks" (the same X-GitHub-Delivery).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from server.kernel.errors import InvalidField, RepositoryNotAllowed, SignatureInvalid, WebhooksNotConfigured
from server.kernel.ports.repositories import Repositories
from server.kernel.ports.webhook_reader import Posted
from server.kernel.webhook import Delivery, Hint, InstallationChanged, Pushed

_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
_BRANCH = "refs/heads/"
_INSTALLATION_EVENTS = frozenset({"installation", "installation_repositories", "installation_target"})
_MAX_NUMBER = 2**31 - 1


class GitHubWebhooks:
    """Several secrets may be valid at a time, so that they can be changed."""

    def __init__(self, secrets: Sequence[str], repositories: Repositories) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self._repositories = repositories

    def read(self, posted: Posted) -> Delivery:
        """See WebhookReader."""
        if not self._secrets:
            raise WebhooksNotConfigured
        if not self._is_signed(posted):
            raise SignatureInvalid
        if not _ID.fullmatch(posted.delivery):
            raise InvalidField("payload", "the header X-GitHub-Delivery is missing, or is no id")
        try:
            body = json.loads(posted.body)
        except (ValueError, RecursionError):
            raise InvalidField("payload", "the body is no JSON: choose the content type application/json for the webhook") from None
        try:
            return Delivery(posted.delivery, self._what(posted.event, body))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # the last: JSON's Infinity for a number
            raise InvalidField("payload", f"this is no {posted.event[:50]!r} of GitHub's") from None

    def _is_signed(self, posted: Posted) -> bool:
        """Compared in a time that tells nothing of what was made."""
        given = posted.signature.encode()
        made = [b"sha256=" + hmac.new(secret, posted.body, hashlib.sha256).hexdigest().encode() for secret in self._secrets]
        return any(hmac.compare_digest(each, given) for each in made)

    def _what(self, event: str, body: Mapping[str, Any]) -> Hint | Pushed | InstallationChanged | None:
        if event in _INSTALLATION_EVENTS:
            return InstallationChanged(str(int(body["installation"]["id"])))
        if event not in ("pull_request", "push") or not (url := self._url(body["repository"])):
            return None
        if event == "push":
            ref = str(body["ref"])
            return Pushed(url, ref.removeprefix(_BRANCH)) if ref.startswith(_BRANCH) and not body.get("deleted") else None
        head = body["pull_request"]["head"]
        if (head.get("repo") or {}).get("full_name") != body["repository"]["full_name"]:
            # From a fork: its branches are none of any session's here.
            return None
        number = int(body["pull_request"]["number"])
        return Hint(url, str(head["ref"]), number) if 0 < number <= _MAX_NUMBER else None

    def _url(self, repository: Mapping[str, Any]) -> str:
        """Empty for one that this server does not fetch from."""
        try:
            return self._repositories.check_url(str(repository["clone_url"]))
        except RepositoryNotAllowed:
            return ""
