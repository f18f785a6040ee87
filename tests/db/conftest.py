"""Everything here runs on both versions of Postgres."""

from __future__ import annotations

import pytest
from support.postgres import PostgresServer


@pytest.fixture(scope="session", params=["postgres18", "postgres15"])
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    return request.getfixturevalue(request.param)
