"""Stopping Envoy in order: SIGTERM alone cuts every stream at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

POLL_SECONDS = 0.02


async def drain(admin: Path, *, seconds: float) -> bool:
    """Ask clients to come no more (`connection: close`, GOAWAY) and wait until no request is open, but not longer than `seconds`.
    `admin` is the socket of Envoy's control. False when the time was up, or Envoy does not answer; stop it then all the same."""
    try:
        async with asyncio.timeout(seconds):
            await _ask(admin, "POST", "/drain_listeners?graceful")
            while await open_requests(admin):  # noqa: ASYNC110 - another process, which has to be asked
                await asyncio.sleep(POLL_SECONDS)
    except (OSError, TimeoutError):
        return False
    return True


async def open_requests(admin: Path) -> int:
    """How many requests and streams are under way. Errors: OSError when Envoy does not answer."""
    name = "http.public.downstream_rq_active"
    answer = await _ask(admin, "GET", f"/stats?filter=^{name}$")
    return int(answer.rpartition(f"{name}: ")[2])


async def _ask(admin: Path, method: str, path: str) -> str:
    reader, writer = await asyncio.open_unix_connection(admin)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise OSError(f"Envoy's control answers {head[:60]!r}")
        return _dechunked(body) if b"transfer-encoding: chunked" in head.lower() else body.decode()
    finally:
        writer.close()


def _dechunked(body: bytes) -> str:
    text = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        text, body = text + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return text.decode()
