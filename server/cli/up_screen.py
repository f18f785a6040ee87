"""What `treadle up` says."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from server.cli.failure import CommandFailed
from server.cli.program import typed
from server.cli.screen import Screen
from server.embedded.room import LITTLE_BYTES, free_bytes, in_words
from server.embedded.stack import Stack


class UpScreen:
    """One method for each thing worth saying."""

    def __init__(self, data_dir: Path) -> None:
        self._screen = Screen()
        self._data_dir = data_dir
        self._starting = True

    def starting(self) -> None:
        """Before anything happens."""
        first = not (self._data_dir / "postgres" / "cluster").exists()
        self._screen.parts(
            ("Treadle ", "bold"),
            (version("treadle"), "bold"),
            (" · the first start makes a database, which takes some seconds" if first else "", "dim"),
            hang=2,
        )

    def ready(self, stack: Stack, *, seconds: float) -> None:
        """It serves."""
        self._starting = False
        capability = stack.server.launcher.capability
        self._screen.label("ready", f"in {seconds:.1f} s")
        agent = stack.server.agent
        self._screen.label("agent", f"{agent.name}: {agent.why}")
        if capability.sandboxed:
            self._screen.label("workers", f"launcher {capability.name}, sandboxed")
        if (free := free_bytes(self._data_dir)) < LITTLE_BYTES:
            self._screen.label("disk", f"only {in_words(free)} free; large repositories will not fit", "bold yellow")
        if not capability.sandboxed:
            self._screen.parts(("  NOT sandboxed: ", "bold yellow"), (capability.detail, "yellow"), hang=4)
            self._screen.parts(("  → ", "dim"), (capability.remedy, "yellow"), hang=4)

    def serving(self, stack: Stack) -> None:
        """How to use it."""
        screen = self._screen
        screen.line()
        screen.parts(("Serving", "bold green"), (" until Ctrl-C; what running turns have done is then committed and pushed.", ""), hang=2)
        screen.label("address", f"{stack.server.api.address} (gRPC)")
        if stack.gateway_url:
            screen.label("gateway", f"{stack.gateway_url} (gRPC, gRPC-web, JSON, server-sent events)")
        screen.label("API key", f"in {stack.key_file}")
        screen.label("sample", stack.sample.url + (" (somebody else has its usual port)" if stack.sample.moved else ""))
        if stack.metrics_url:
            screen.label("metrics", stack.metrics_url)
        if stack.log_file:
            screen.label("log", str(stack.log_file))
        screen.line()
        screen.line("Try, in another terminal:", "bold")
        for command in (f'run --repo {stack.sample.url} "Add a note"', "sessions", "doctor"):
            screen.line(f"  {typed(command, self._data_dir)}", "cyan")

    def demo_failed(self, failure: CommandFailed) -> None:
        """The demo session could not be played."""
        self._screen.prose(f"the demo session failed: {failure}", "red")

    def ctrl_c(self) -> None:
        """The first one; while it starts nothing else tells that it was heard."""
        if self._starting:
            self._screen.prose("  stopping as soon as it has started; Ctrl-C again leaves at once")

    def ending(self, turns: int) -> None:
        """After Ctrl-C."""
        self._screen.line()
        more = (
            f" {_running(turns)} being stopped; what was done so far is committed and pushed. Ctrl-C again leaves at once." if turns else ""
        )
        self._screen.prose(f"Stopping.{more}")

    def leaving(self, turns: int) -> None:
        """After SIGTERM."""
        self._screen.prose("Stopping." + (f" {_running(turns)} left to go on with the next start." if turns else ""))

    def not_published(self) -> None:
        """Ctrl-C twice."""
        self._screen.prose("Work that is not pushed yet is kept; the next start pushes it.", "yellow")

    def part(self, words: str) -> None:
        """Something happened to a part."""
        self._screen.prose(words, "yellow")

    def failed(self, stack: Stack, why: str) -> None:
        """A part that everything stands on is gone for good."""
        self._screen.prose(f"The server could not go on: {why}", "bold red")
        self._screen.prose(f"The log is {stack.log_file}.")

    def stopped(self) -> None:
        """The last line."""
        self._screen.line("Stopped.", "dim")


def _running(turns: int) -> str:
    return "1 running turn is" if turns == 1 else f"{turns} running turns are"
