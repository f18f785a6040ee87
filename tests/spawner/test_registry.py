"""What a spawner of a Swarm makes of a registry's answers; the engine that asks it is played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.spawner import swarm_readiness
from server.spawner.engine import EngineAway, RegistryDenies
from server.spawner.settings import SpawnerSettings
from server.spawner.swarm import SwarmUnfit
from server.spawner.swarm_template import SwarmTemplate


class RegistryOf:
    """An engine that is asked for nothing else: answers by agent, the last one again and again."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    async def digest_in_registry(self, image: str) -> str:
        answers = self._answers.get(image.rpartition("-")[2], [""])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({"replay": ["sha256:a"]}, {"replay": "sha256:a"}),
        ({}, {}),
        ({"replay": [EngineAway("503"), "sha256:a"]}, {"replay": "sha256:a"}),
        ({"replay": ["sha256:a"], "anthropic": [RegistryDenies("denied")]}, {"replay": "sha256:a"}),
        ({"anthropic": [RegistryDenies("denied")]}, "denied"),
        ({"replay": ["sha256:a"], "anthropic": [EngineAway("no such host")]}, "no such host"),
    ],
)
async def test_only_a_clear_answer_of_a_registry_takes_an_agent_away(
    answers: dict[str, Any], found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_readiness, "_PAUSE_SECONDS", 0.0)
    engine: Any = RegistryOf(**{name: [*each] for name, each in answers.items()})
    asking = swarm_readiness._digests(engine, SwarmTemplate(SpawnerSettings(data_dir=tmp_path), "network"))
    if isinstance(found, dict):
        assert await asking == found
    else:
        with pytest.raises(SwarmUnfit, match=found):
            await asking
