"""Which agents are there, and which one a session gets that names none."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from pydantic import ValidationError

from server import adapters, agents
from server.config import Settings

KEY, TOKEN = {"ANTHROPIC_API_KEY": "sk-x"}, {"CLAUDE_CODE_OAUTH_TOKEN": "sk-y"}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What was found before counts for nothing here, and what is found here for nobody else."""
    for found in (adapters.installed, adapters.not_installed):
        found.cache_clear()
    yield
    for found in (adapters.installed, adapters.not_installed):
        found.cache_clear()


@pytest.fixture
def without_claude(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(package: str) -> str:
        if package == "claude-agent-sdk":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(adapters, "version", installed)


def settings(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], **fields: Any) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings(**fields)


def test_every_agent_is_listed_where_its_packages_are() -> None:
    assert agents.installed_agents() == ("anthropic", "claude", "replay")
    assert agents.agents_to_install() == {}


@pytest.mark.usefixtures("without_claude")
def test_an_agent_whose_package_is_not_installed_is_not_listed() -> None:
    assert agents.installed_agents() == ("anthropic", "replay")
    assert agents.agents_to_install() == {"claude": "claude"}


@pytest.mark.parametrize(
    ("variables", "fields", "name", "why"),
    [
        ({}, {}, "replay", "ANTHROPIC_API_KEY"),
        (KEY, {}, "claude", "ANTHROPIC_API_KEY is set"),
        (TOKEN, {}, "claude", "CLAUDE_CODE_OAUTH_TOKEN is set"),
        (KEY | TOKEN, {}, "claude", "ANTHROPIC_API_KEY is set"),
        (KEY, {"default_provider": "replay"}, "replay", "TREADLE_DEFAULT_PROVIDER"),
        ({}, {"default_provider": "anthropic"}, "anthropic", "TREADLE_DEFAULT_PROVIDER"),
    ],
)
def test_the_default_is_claude_where_it_can_work(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], fields: dict[str, str], name: str, why: str
) -> None:
    choice = agents.default_agent(settings(monkeypatch, variables, **fields), agents.installed_agents())
    assert choice.name == name
    assert why in choice.why
    assert "sk-" not in choice.why


@pytest.mark.usefixtures("without_claude")
def test_an_agent_that_is_in_images_need_not_be_installed_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, {}, launcher="docker", default_provider="claude").default_provider == "claude"
    with pytest.raises(ValidationError, match="'claude' is not installed; there are: anthropic, replay"):
        settings(monkeypatch, {}, launcher="process", default_provider="claude")


@pytest.mark.usefixtures("without_claude")
def test_a_credential_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = agents.default_agent(settings(monkeypatch, KEY), agents.installed_agents())
    assert choice.name == "replay"
    assert "pip install 'treadle[claude]'" in choice.why
