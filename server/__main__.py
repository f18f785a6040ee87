"""`python -m server`: the main server alone, for deployments that bring their own Postgres. `treadle up` brings everything."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.config import Settings

_DONE, _FAILED, _REFUSED = 0, 1, 2


def main() -> int:
    """Exit code 0 after SIGTERM or SIGINT, 1 when the server could not go on, 2 when it cannot start like this."""
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="The main server alone, for deployments that bring their own Postgres; `treadle up` brings everything.",
        epilog="Every setting is an environment variable, listed in docs/configuration.md.",
    )
    parser.add_argument("--healthy", action="store_true", help="only ask the one that runs here whether it serves")
    words = "only make the two roles and the tables, by TREADLE_DATABASE_OWNER_URL, which the server itself then needs no more"
    parser.add_argument("--prepare-database", action="store_true", help=words)
    options = parser.parse_args()
    if options.healthy:
        return _healthy(os.environ.get("TREADLE_LISTEN", "127.0.0.1:7433"))
    # Read when grpc is imported. We fork only to run other programs; gRPC's own preparations for a fork print warnings then.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from server.environment import set_in_vain, settings_of_environment
    from server.refusal import SettingsUnfit

    try:
        settings = settings_of_environment()
    except SettingsUnfit as error:
        return _complain(str(error), _REFUSED)
    if not settings.database_url.get_secret_value() or not settings.database_system_url.get_secret_value():
        needed = "TREADLE_DATABASE_URL and TREADLE_DATABASE_SYSTEM_URL are needed (docs/configuration.md)"
        return _complain(f"{needed}; `treadle up` brings a Postgres of its own", _REFUSED)
    if options.prepare_database:
        return _prepare(settings)
    if misplaced := set_in_vain(settings):
        return _complain("\n  ".join(misplaced), _REFUSED)
    return _serve(settings)


def _serve(settings: Settings) -> int:
    from server.db.errors import with_cause
    from server.kernel.errors import StoreRejected, StoreUnavailable
    from server.refusal import StartRefused
    from server.serve import serve_until_signal

    try:
        return serve_until_signal(settings)
    except StartRefused as error:
        return _complain(str(error), _REFUSED)
    except (StoreUnavailable, StoreRejected) as error:
        return _complain(with_cause(error), _FAILED)


def _prepare(settings: Settings) -> int:
    import asyncio

    from server.db.errors import with_cause
    from server.db.prepare import prepare_database
    from server.kernel.errors import StoreRejected, StoreUnavailable
    from server.refusal import StartRefused

    if not settings.database_owner_url.get_secret_value():
        return _complain("TREADLE_DATABASE_OWNER_URL is needed to prepare a database", _REFUSED)
    try:
        asyncio.run(prepare_database(settings))
    except StartRefused as error:
        return _complain(str(error), _REFUSED)
    except (StoreUnavailable, StoreRejected) as error:
        return _complain(with_cause(error), _FAILED)
    return _DONE


def _healthy(listen: str) -> int:
    """Whether it takes calls; one that drains does not. Asked every few seconds, so nothing is loaded that this does not need."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    host, _, port = listen.rpartition(":")
    address = f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104
    try:
        with grpc.insecure_channel(address) as channel:
            request = health_pb2.HealthCheckRequest(service="treadle.session.v1.SessionService")
            found = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
    except grpc.RpcError as error:
        return _complain(f"it does not answer at {address}: {error.details()}", _FAILED)
    return _DONE if found.status == health_pb2.HealthCheckResponse.SERVING else _complain("it takes no calls", _FAILED)


def _complain(words: str, exit_code: int) -> int:
    from server.refusal import tell

    tell("server", words)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
