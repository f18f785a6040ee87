"""The agents of this installation: which are there, what they need, and which one a session gets that names none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from server.adapters import installed, not_installed
from server.config import Settings

PORT = "provider"
FALLBACK = "replay"
PREFERRED = "claude"

COAUTHORS = {"anthropic": "Claude <noreply@anthropic.com>", "claude": "Claude <noreply@anthropic.com>"}
"""As whom each agent is named beside the author, where a code host knows it by an address. `replay` has made nothing itself."""


@dataclass(frozen=True)
class Choice:
    """The agent of a session that names none, and why it is that one."""

    name: str
    why: str


def installed_agents() -> tuple[str, ...]:
    """The agents whose packages are there, by name."""
    return installed(PORT)


def agents_to_install() -> dict[str, str]:
    """The agents that are known but whose packages are not there: name and extra."""
    return not_installed(PORT)


def claude_credential(settings: Settings) -> str:
    """Where the server has a credential for Claude models from, by the name of the variable; empty for none. Never its value."""
    if settings.anthropic_api_key.get_secret_value():
        return "ANTHROPIC_API_KEY"
    if settings.claude_oauth_token.get_secret_value():
        return "CLAUDE_CODE_OAUTH_TOKEN"
    return "TREADLE_CLAUDE_CREDENTIALS" if settings.claude_credentials else ""


def default_agent(settings: Settings, available: Collection[str]) -> Choice:
    """The setting, if it names one; else `claude`, where it is among those that can be run and has a credential; else `replay`."""
    if settings.default_provider:
        return Choice(settings.default_provider, "TREADLE_DEFAULT_PROVIDER says so")
    credential = claude_credential(settings)
    if not credential:
        return Choice(FALLBACK, "it calls no model; with ANTHROPIC_API_KEY it would be claude")
    if PREFERRED not in available:
        return Choice(FALLBACK, f"{credential} is set, but claude is not installed: {how_to_install(PREFERRED, settings.launcher)}")
    return Choice(PREFERRED, f"{credential} is set")


def how_to_install(agent: str, launcher: str) -> str:
    """What to do about an agent that is not there."""
    if launcher != "process":
        return "`make images` builds its image"
    if agent not in agents_to_install():
        return f"there is no such agent; there are: {', '.join(installed_agents())}"
    return f"`make run` installs it, or: pip install 'treadle[{agents_to_install()[agent]}]'"
