"""With a key in its environment `treadle up` uses Claude, and says so; the key stays with the server."""

from __future__ import annotations

import pytest
from support.fake_anthropic import fake_anthropic
from support.sandbox import require_sandbox

pytestmark = pytest.mark.timeout(300)
pytest.importorskip("claude_agent_sdk")

KEY = "sk-ant-canary-0123456789abcdef"


async def test_the_first_start_and_every_session_use_claude(unused) -> None:
    require_sandbox()
    async with fake_anthropic() as fake:
        variables = {"ANTHROPIC_API_KEY": KEY, "TREADLE_ANTHROPIC_URL": fake.url, "TREADLE_NAMING": "false"}
        async with unused.started("up", "--listen", "127.0.0.1:0", **variables) as up:
            await up.says("agent     claude: ANTHROPIC_API_KEY is set")
            await up.says("The agent is `claude`")
            await up.says("Fake answer")
            await up.says("Try, in another terminal")
            asked = len(fake.messages)
            assert asked
            ran = await unused.run("run", "--repo", unused.sample_url, "[[script:bash cmd=echo+hi]]")
            assert ran.code == 0, ran
            assert "turn 1 · claude" in ran.out
            assert "$ echo hi" in ran.out
            assert "\n  model     claude-" in ran.out
            assert "\n  cost      " in ran.out
            assert len(fake.messages) > asked
            assert {each.key for each in fake.asked} == {KEY}
            ended = await up.stop()
        assert ended.code == 0, ended
        assert KEY not in ended.out + ended.err + ran.out + ran.err
        log = (unused.data_dir / "server.log").read_text()
        assert KEY not in log
        assert unused.processes() == []
