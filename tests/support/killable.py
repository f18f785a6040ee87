"""`python -m support.killable`: the real server, which kills itself when it passes a named point for the nth time.

It prints its address when it listens. The composition root tells `mark` of every named point; nothing else differs from `python -m server`.
"""

from __future__ import annotations

import asyncio
import os
import signal

from support.model_script import recordings_reach_models

from server.composition import compose
from server.config import Settings
from server.identity.local_user import ensure_local_user
from server.serve import stop_signals
from server.telemetry import configure_logging


def main() -> None:
    asyncio.run(_serve())


async def _serve() -> None:
    if os.environ.get("RECORDINGS_REACH_MODELS"):
        recordings_reach_models(setattr)
    settings = Settings()
    configure_logging(log_format="json", level="debug", secrets=lambda: ())
    async with compose(settings, mark=_killer()) as server:
        await ensure_local_user(server.stores.keys, settings.data_dir)
        print(server.api.address, flush=True)
        stop = asyncio.create_task(stop_signals().wait())
        await asyncio.wait([stop, server.failed], return_when=asyncio.FIRST_COMPLETED)


def _killer():
    point, left = os.environ["KILL_AT"], [int(os.environ["KILL_NTH"])]

    def mark(name: str) -> None:
        if name == point:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return mark


if __name__ == "__main__":
    main()
