"""Bytes on their way to a client: bounded waits, and the headers of an attachment."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from urllib.parse import quote

from google.api.httpbody_pb2 import HttpBody

from server import telemetry
from server.api.edge import Context
from server.kernel.errors import DownloadStalled
from server.kernel.stall import StallTimeout
from server.kernel.states import State

BINARY = "application/octet-stream"

Form = Callable[[bytes], bytes]


class Downloads:
    """Sends what is read piece by piece. A client that does not read holds one piece, and not for ever."""

    def __init__(self, *, write_seconds: float) -> None:
        self._write_seconds = write_seconds

    async def send(self, context: Context, chunks: AsyncGenerator[bytes, None], form: Form, *, first: bytes) -> None:
        """Write `first`, then each chunk in its form. Errors: DownloadStalled, and those of `chunks`."""
        stall = StallTimeout(self._write_seconds)
        try:
            async with aclosing(chunks), stall:
                await self._write(context, stall, first)
                async for chunk in chunks:
                    await self._write(context, stall, form(chunk))
        except TimeoutError:
            if not stall.expired:
                raise
            raise DownloadStalled from None

    async def attach(
        self, context: Context, chunks: AsyncGenerator[bytes, None], *, name: str, size: int | None = None, of: State | None = None
    ) -> None:
        """Send chunks as HTTP's body, to be kept as `name`. What agents write is never shown by a browser, whatever it looks like. The
        first chunk is waited for: what fails before it is told by the answer's status. `of` is the state that is told of. Errors: as
        `send`."""
        async with aclosing(chunks):
            begun = await anext(chunks, b"")
            disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
            headers = [("content-disposition", disposition), ("x-content-type-options", "nosniff")]
            if size is not None:
                headers.append(("x-treadle-size", str(size)))
            if of is not None:
                headers += [("x-treadle-commit", of.commit), ("x-treadle-behind-workspace", str(int(of.behind_workspace)))]
            await context.send_initial_metadata(headers)
            await self.send(context, chunks, _body, first=HttpBody(content_type=BINARY, data=begun).SerializeToString())

    async def _write(self, context: Context, stall: StallTimeout, data: bytes) -> None:
        stall.begin()
        await context.write(data)
        stall.end()
        telemetry.STREAM_BYTES.inc(len(data))


def _body(data: bytes) -> bytes:
    return bytes(HttpBody(data=data).SerializeToString())
