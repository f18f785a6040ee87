"""A recording whose commands ask a model: a script for the provider `replay`, so that the whole way is tried without a real agent.

A recording gets no door to models, of course: `recordings_reach_models` opens one for a test. Its token is known to the worker alone,
so the test looks it up and lays it into the workspace's `.git`, which is never published.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.model_door import ask

from server.models import gateway
from server.models.formats import Format
from server.workers.slot import slots

SCRIPT = '''
"""ask.py FILE...: posts each file at the door, one after the other, as an agent does; "&" before a name: without waiting."""
import http.client, pathlib, socket, sys, threading, time

class Door(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/models/model.sock")

def post(name):
    body = pathlib.Path(name).read_bytes()
    while True:
        door = Door("gateway")
        try:
            door.request("POST", "/v1/messages", body, {"x-api-key": token, "content-type": "application/json"})
            answer = door.getresponse()
            print(name, answer.status, len(answer.read()) > 0, flush=True)
            return
        except (OSError, http.client.HTTPException) as error:
            # As the clients of real agents do: the server may be on its way back.
            print(name, "again after", type(error).__name__, flush=True)
            time.sleep(0.1)

while not (file := pathlib.Path(".git/token")).exists():
    time.sleep(0.02)
token = file.read_text()
threads = []
for name in sys.argv[1:]:
    thread = threading.Thread(target=post, args=(name.lstrip("&"),))
    thread.start()
    threads.append(thread)
    if not name.startswith("&"):
        thread.join()
for thread in threads:
    thread.join()
'''


def recordings_reach_models(setattr_: Callable[..., Any]) -> None:
    """Give the provider `replay` a door, with `setattr` or a test's monkeypatch."""
    setattr_(gateway, "FORMATS", {**gateway.FORMATS, "replay": frozenset({Format.ANTHROPIC})})


def files(*steps: dict[str, Any], **requests: dict[str, Any]) -> dict[str, str]:
    """A repository with the script, the recording `r.jsonl`, and requests (by name, as differences to `ask()`)."""
    bodies = {f"{name}.json": json.dumps(ask(**fields)) for name, fields in requests.items()}
    return {"ask.py": SCRIPT, "r.jsonl": "".join(json.dumps(step) + "\n" for step in steps), **bodies}


def asking(*names: str) -> dict[str, Any]:
    """The step that posts these requests."""
    return {"run": ["python3", "ask.py", *(f"{name}.json" for name in names)]}


async def hand_out_tokens(workers: Path) -> None:
    """Give every worker's script its token, until cancelled."""
    while True:
        for slot in await asyncio.to_thread(lambda: [*slots(workers)]):
            git = slot.workspace / ".git"
            if (slot.path / "pid").exists() and git.is_dir() and not (git / "token").exists():
                (git / "token.new").write_text(slot.model_token())
                (git / "token.new").rename(git / "token")
        await asyncio.sleep(0.02)
