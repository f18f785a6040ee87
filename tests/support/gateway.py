"""An HTTP client of a gateway."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

ORIGIN = "https://app.example.org"
_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    " -keyout key.pem -out cert.pem"
)


async def own_certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, signed by itself."""
    await asyncio.to_thread(subprocess.run, _CERTIFICATE.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def control(home: Path) -> Path:
    """Of the Envoy that was started in `home`."""
    return home / yaml.safe_load((home / "envoy.yaml").read_text())["admin"]["address"]["pipe"]["path"]


@dataclass(frozen=True)
class Http:
    """An HTTP client of the gateway, with the local user's key."""

    base: str
    session: aiohttp.ClientSession
    program: Path
    home: Path
    upstream: str

    @property
    def address(self) -> str:
        return self.base.removeprefix("http://")

    @staticmethod
    def blocks(text: str) -> list[dict[str, str]]:
        """Server-sent events, as a browser takes them apart."""
        found = []
        for block in filter(None, text.split("\n\n")):
            fields = [line.partition(": ") for line in block.split("\n") if not line.startswith(":")]
            if fields:
                found.append({name: value for name, _, value in fields})
        return found

    async def events(self, path: str, **headers: str) -> list[dict[str, str]]:
        """The blocks with an id of a whole stream, which must be complete."""
        async with self.session.get(self.base + path, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            blocks = self.blocks(await answer.text())
        assert blocks[-1]["event"] == "closed"
        return [block for block in blocks if "id" in block]
