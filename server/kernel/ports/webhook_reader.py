"""Port: reads what a code host sends by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from server.kernel.webhook import Delivery


@dataclass(frozen=True)
class Posted:
    """A request of which nothing is known yet."""

    body: bytes
    event: str
    delivery: str
    signature: str


class WebhookReader(Protocol):
    """Believes nothing that is not signed with one of the operator's secrets."""

    def read(self, posted: Posted) -> Delivery:
        """No I/O. Errors: WebhooksNotConfigured; SignatureInvalid; InvalidField for what is signed and cannot be understood."""
        ...
