"""The Claude program as a process: how it is started, heard, asked to stop, and killed."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from claude_agent_sdk import CanUseTool, ClaudeAgentOptions, ClaudeSDKError, HookMatcher, ProcessError
from claude_agent_sdk._internal.message_parser import parse_message
from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport

from treadle.session.v1 import event_pb2 as session
from worker.descendants import kill_tree
from worker.oom import first_to_go
from worker.provider import Request, network_of
from worker.providers.claude_transcript import Transcript

UNKNOWN = "treadle_unknown"
"""The subtype under which a message that the SDK does not know gets through it."""

TOOLS = ["Agent", "Bash", "Edit", "Glob", "Grep", "NotebookEdit", "Read", "TodoWrite", "Write"]
"""What is offered. Not among them: what needs a network, and what outlives a turn (schedules, worktrees, background tasks)."""

RETRIES = 5
"""Pauses grow from 0.5 s: a server that restarts is waited for. The gateway repeats by itself what the API refuses for now."""

_SILENCE_MS = 1_800_000
"""The most that the program takes. The gateway has shorter limits, tells them, and tries again by itself."""

_EDITS = "Edit|Write|NotebookEdit"
_MAX_LINE_BYTES = 64 * 1024 * 1024
_ERROR_LINES = 20
_GUIDES = ("CLAUDE.md", "AGENTS.md")
_GUIDE_CHARS = 24 * 1024
_ABOUT_HERE = """\
You work in a throw-away sandbox. {network} Do not commit or push: what you leave in the working tree is committed and pushed for
you when you are done."""

_QUESTIONS = "AskUserQuestion"
"""Offered because there is a desk: without somebody to answer it would be an error."""

BeforeTool = Callable[[str, str, dict[str, Any]], Awaitable[None]]
"""Called with the id, name and input of a tool before it runs, or leave for it is asked for; of edits always, of others where leave is
asked for."""


def options_for(
    request: Request, *, model: str, home: Path, transcript: Transcript, before_tool: BeforeTool, permissions: CanUseTool
) -> ClaudeAgentOptions:
    """How the program runs this request. It reads no settings of the repository: those could change what is decided here."""
    assert request.models is not None  # noqa: S101

    async def hook(event: Any, call_id: str | None, _: Any) -> dict[str, Any]:
        await before_tool(call_id or "", event.get("tool_name", ""), event.get("tool_input") or {})
        return {}

    asks = request.approvals == session.APPROVALS_ASK
    options = ClaudeAgentOptions(
        model=model,
        cwd=request.workspace,
        env=_environment(str(request.models.socket), request.models.token, home),
        tools=[*TOOLS, _QUESTIONS],
        permission_mode="default" if asks else "bypassPermissions",
        can_use_tool=permissions,
        setting_sources=[],
        strict_mcp_config=True,
        system_prompt={"type": "preset", "preset": "claude_code", "append": _appendix(request)},
        include_partial_messages=True,
        forward_subagent_text=True,
        max_turns=request.max_steps or None,
        # Of what a user says it tells when it takes it up.
        extra_args={"replay-user-messages": None},
        max_buffer_size=_MAX_LINE_BYTES,
        hooks={"PreToolUse": [HookMatcher(matcher=None if asks else _EDITS, hooks=[hook])]},  # type: ignore[list-item]
    )
    if transcript.exists:
        options.resume = transcript.session_id
    else:
        options.session_id = transcript.session_id
    return options


class Program(SubprocessCLITransport):
    """One run of the program. The SDK reads and writes it; what the SDK would drop is kept here."""

    def __init__(self, options: ClaudeAgentOptions) -> None:
        self._errors: deque[str] = deque(maxlen=_ERROR_LINES)
        self._killed = False
        self._unheard: set[str] = set()
        self._unanswered = False
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._ended = False
        options.stderr = self._errors.append
        # The SDK gets the callback, the program is told to ask for it. What the SDK would warn about is wanted: in bypassPermissions
        # only questions arrive.
        self.options = replace(options, permission_mode=None)
        super().__init__(prompt="", options=replace(options, can_use_tool=None, permission_prompt_tool_name="stdio"))

    @property
    def pid(self) -> int | None:
        """The program's process, while it lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def connect(self) -> None:
        """See Transport."""
        with first_to_go():
            await super().connect()
        if self._killed:
            # While it was being started there was nothing to kill.
            self.kill()

    async def first_words(self, prompt: str) -> AsyncIterator[dict[str, Any]]:
        """The request, as the SDK takes it."""
        yield _of_the_user(prompt)

    async def say(self, text: str, *, message_id: str) -> bool:
        """Tell the program what the user says meanwhile; False when it does not listen any more."""
        if self._ended:
            return False
        self._unheard.add(message_id)
        self._at_rest.clear()
        try:
            await self.write(json.dumps(_of_the_user(text) | {"uuid": message_id, "priority": "next"}) + "\n")
        except ClaudeSDKError:
            return False
        return True

    async def end_input(self) -> None:
        """See Transport. Not before the program has done what it was told last: the SDK ends its input when it hears that the program is
        done, which may be a moment after the user said something more; then nobody could answer its hooks and requests for permission."""
        while not self._at_rest.is_set():
            await self._at_rest.wait()
        self._ended = True
        await super().end_input()

    def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """See Transport."""
        return self._whole(self._followed(super().read_messages()))

    async def interrupt(self) -> None:
        """Ask the program to stop what it is doing, and to forget what it was told and has not taken up: it would begin with that. A dead
        one, or one that does not listen, is left alone."""
        self._ended = True
        requests = [{"subtype": "cancel_async_message", "message_uuid": each} for each in self._unheard] + [{"subtype": "interrupt"}]
        self._unheard.clear()
        self._unanswered = False
        self._at_rest.set()
        with suppress(ClaudeSDKError):
            for number, request in enumerate(requests):
                asked = {"type": "control_request", "request_id": f"treadle-interrupt-{number}", "request": request}
                await self.write(json.dumps(asked) + "\n")

    def kill(self) -> None:
        """SIGKILL the program and everything below it, now, or as soon as it is started."""
        self._killed = True
        if (pid := self.pid) is not None:
            kill_tree(pid)

    def obituary(self, error: ClaudeSDKError) -> str:
        """One sentence on how it ended without a word."""
        code = error.exit_code if isinstance(error, ProcessError) else None
        how = "cannot go on" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        last = next((line.strip() for line in reversed(self._errors) if line.strip()), "") or (str(error) if code is None else "")
        return f"the Claude program {how}" + (f": {last[:500]}" if last else "")

    async def _followed(self, messages: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """The same, and what becomes of that which the program was told: it repeats each message when it takes it up, and a result comes
        behind it."""
        try:
            async for message in messages:
                if message.get("uuid") in self._unheard:
                    self._unheard.remove(message["uuid"])
                    self._unanswered = True
                elif message.get("type") == "result":
                    self._unanswered = False
                if not self._unheard and not self._unanswered:
                    self._at_rest.set()
                yield message
        finally:
            self._at_rest.set()

    async def _whole(self, messages: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        async for message in messages:
            yield message if _is_known(message) else {"type": "system", "subtype": UNKNOWN, "message": message}


def _of_the_user(text: str) -> dict[str, Any]:
    """A text of the user, as the SDK takes it. One like "/etc is wrong" is no command of the program, nor is "/clear"."""
    plain = {"client_composed": True} if text.lstrip().startswith("/") else {}
    return {"type": "user", "message": {"role": "user", "content": text}, "parent_tool_use_id": None, "session_id": "", **plain}


_OWN = frozenset({"control_request", "control_response", "control_cancel_request", "keep_alive", "transcript_mirror", "command_lifecycle"})
"""Types that the SDK uses itself, or that say nothing which is not said otherwise."""


def _is_known(message: dict[str, Any]) -> bool:
    """Whether nothing is lost when the SDK does not hand it on."""
    if message.get("type") in _OWN:
        return True
    try:
        return parse_message(message) is not None
    except ClaudeSDKError:
        return False


def _environment(socket: str, token: str, home: Path) -> dict[str, str]:
    environment = {
        # All its requests go to the socket; the address is only for the Host header, and says that there is no TLS.
        "ANTHROPIC_UNIX_SOCKET": socket,
        "ANTHROPIC_BASE_URL": "http://models",
        "ANTHROPIC_API_KEY": token,
        "CLAUDE_CONFIG_DIR": str(home),
        "CLAUDE_CODE_MAX_RETRIES": str(RETRIES),
        "API_TIMEOUT_MS": str(_SILENCE_MS),
        "CLAUDE_STREAM_FIRST_BYTE_TIMEOUT_MS": str(_SILENCE_MS),
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": str(_SILENCE_MS),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        # The turn ends with the agent: what would go on behind it is done before.
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        # Plans as one list (TodoWrite), not as tasks one by one.
        "CLAUDE_CODE_ENABLE_TASKS": "0",
    }
    if os.geteuid() == 0:
        # Without it the program refuses bypassPermissions to root: only where Treadle runs as root without a sandbox. Exactly "1".
        environment["IS_SANDBOX"] = "1"
    return environment


def _appendix(request: Request) -> str:
    """What the repository says to agents is read here, since the program reads no settings of the repository."""
    parts = [_ABOUT_HERE.format(network=network_of(request))]
    for name in _GUIDES:
        with suppress(OSError, ValueError):
            path = request.workspace / name
            if path.is_file():
                with path.open(encoding="utf-8", errors="replace") as file:
                    parts.append(f"The repository's {name}:\n\n{file.read(_GUIDE_CHARS)}")
                break
    return "\n\n".join(parts)
