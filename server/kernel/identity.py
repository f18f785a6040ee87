"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Principal:
    """An authenticated caller. Every query is scoped by `tenant_id` and `user_id`."""

    tenant_id: str
    user_id: str
    name: str
    email: str
