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
    argparse.ArgumentParser(
        prog="python -m server",
        description="The main server alone, for deployments that bring their own Postgres; `treadle up` brings everything.",
        epilog="It has no options: every setting is an environment variable, listed in docs/configuration.md.",
    ).parse_args()
    # Read when grpc is imported. We fork only to run other programs; gRPC's own preparations for a fork print warnings then.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from server.environment import settings_of_environment
    from server.refusal import SettingsUnfit

    try:
        settings = settings_of_environment()
    except SettingsUnfit as error:
        return _complain(str(error), _REFUSED)
    if not settings.database_url.get_secret_value() or not settings.database_system_url.get_secret_value():
        needed = "TREADLE_DATABASE_URL and TREADLE_DATABASE_SYSTEM_URL are needed (docs/configuration.md)"
        return _complain(f"{needed}; `treadle up` brings a Postgres of its own", _REFUSED)
    return _serve(settings)


def _serve(settings: Settings) -> int:
    from server.kernel.errors import StoreRejected, StoreUnavailable
    from server.refusal import StartRefused
    from server.serve import serve_until_signal

    try:
        return serve_until_signal(settings)
    except StartRefused as error:
        return _complain(str(error), _REFUSED)
    except (StoreUnavailable, StoreRejected) as error:
        return _complain(f"{error.message}{f' ({error.__cause__})' if error.__cause__ else ''}", _FAILED)


def _complain(words: str, exit_code: int) -> int:
    print(f"server: {words}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
