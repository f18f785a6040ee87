"""A renewable login: renewed once, in time, by one, and never lost."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from support.fake_upstream import FakeUpstream, message, status
from support.model_door import RecordingBill

from server.config import Settings
from server.models.errors import LoginUnfit
from server.models.login import Login, LoginFailed, open_login
from server.secrets import known_secrets

CLIENT = "client-id"


def write(path: Path, *, expires_in: float, access: str = "access-old", refresh: str = "refresh-old") -> Path:
    fields = {"accessToken": access, "refreshToken": refresh, "expiresAt": int((time.time() + expires_in) * 1000)}
    path.write_text(json.dumps({"claudeAiOauth": {**fields, "scopes": ["user:inference"], "subscriptionType": "max"}, "other": 1}))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".credentials.json"


def opened(file: Path, upstream: FakeUpstream) -> Login:
    return open_login(file, url=upstream.url + "/oauth/token", client_id=CLIENT)


async def test_a_fresh_token_is_used_as_it_is(file: Path, upstream: FakeUpstream) -> None:
    login = opened(write(file, expires_in=3600), upstream)
    assert await login.token() == "access-old"
    assert upstream.refreshes == []


async def test_an_old_token_is_renewed_before_it_expires_once_and_written_back(file: Path, upstream: FakeUpstream) -> None:
    login = opened(write(file, expires_in=60), upstream)
    file.chmod(0o644)
    assert set(await asyncio.gather(*[login.token() for _ in range(20)])) == {"access-number-1"}
    assert upstream.refreshes == [{"grant_type": "refresh_token", "refresh_token": "refresh-old", "client_id": CLIENT}]
    written = json.loads(file.read_text())
    assert written["claudeAiOauth"].items() >= {"accessToken": "access-number-1", "refreshToken": "refresh-number-1"}.items()
    assert written["claudeAiOauth"]["expiresAt"] > (time.time() + 3000) * 1000
    assert (written["other"], written["claudeAiOauth"]["subscriptionType"]) == (1, "max"), "what is not ours is kept"
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == [".credentials.json", "..credentials.json.lock"][::-1]
    known = known_secrets(Settings(data_dir=file.parent), {})()
    assert {"access-old", "refresh-old", "access-number-1", "refresh-number-1"} <= {*known}


async def test_two_servers_renew_it_once(file: Path, upstream: FakeUpstream) -> None:
    first, second = (opened(write(file, expires_in=60), upstream) for _ in range(2))
    assert {*await asyncio.gather(first.token(), second.token())} == {"access-number-1"}
    assert len(upstream.refreshes) == 1


async def test_a_renewal_survives_whoever_asked_for_it(file: Path, upstream: FakeUpstream) -> None:
    """The answer has made the old refresh token worthless: it must be written, also when the agent hangs up or the server stops."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        asked.set()
        await go.wait()
        return web.json_response({"access_token": "late-token", "refresh_token": "late-refresh", "expires_in": 100})

    upstream.refresh = slow
    login = opened(write(file, expires_in=-1), upstream)
    task = asyncio.create_task(login.token())
    await asyncio.wait_for(asked.wait(), 10)
    task.cancel()
    go.set()
    await login.close()
    assert json.loads(file.read_text())["claudeAiOauth"]["refreshToken"] == "late-refresh"


@pytest.mark.parametrize("answer", [{"code": 400}, {"body": {}}, {"body": []}, {"body": {"access_token": "x", "expires_in": "soon"}}])
async def test_what_cannot_be_renewed_says_so_without_secrets(file: Path, upstream: FakeUpstream, answer: dict[str, Any]) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response(answer.get("body", {"error": "refresh-old"}), status=answer.get("code", 200))

    upstream.refresh = refuse
    login = opened(write(file, expires_in=-1), upstream)
    with pytest.raises(LoginFailed) as failed:
        await login.token()
    assert "refresh-old" not in str(failed.value)
    assert json.loads(file.read_text())["claudeAiOauth"]["refreshToken"] == "refresh-old"


async def test_a_token_that_is_still_good_is_used_when_renewing_fails_and_the_provider_is_left_alone(
    file: Path, upstream: FakeUpstream
) -> None:
    upstream.refresh = status(503)
    login = opened(write(file, expires_in=60), upstream)
    assert [await login.token() for _ in range(5)] == ["access-old"] * 5
    assert len(upstream.refreshes) == 1


async def test_with_a_dead_login_the_provider_is_left_alone_too(
    file: Path, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.refresh = status(400)
    login = opened(write(file, expires_in=-10), upstream)
    for _ in range(5):
        with pytest.raises(LoginFailed, match="log in again"):
            await login.token()
        assert not await login.renew("access-old"), "as when the provider answers 401"
    assert len(upstream.refreshes) == 1
    monkeypatch.setattr("server.models.login._AGAIN_SECONDS", 0)
    upstream.refresh = None
    assert await login.token() == "access-number-2"


def test_a_file_that_is_no_login_stops_the_start(file: Path, upstream: FakeUpstream) -> None:
    with pytest.raises(LoginUnfit, match="cannot be read"):
        opened(file, upstream)
    for content in ("", "[]", "{}", '{"claudeAiOauth": {"accessToken": "x"}}'):
        file.write_text(content)
        with pytest.raises(LoginUnfit, match="is no Claude login"):
            opened(file, upstream)


async def test_a_refused_token_is_renewed_and_the_request_repeated(
    doors: Any, settings: dict[str, Any], file: Path, upstream: FakeUpstream
) -> None:
    settings |= {
        "anthropic_api_key": SecretStr(""),
        "claude_credentials": write(file, expires_in=3600),
        "claude_refresh_url": upstream.url + "/oauth/token",
    }
    bill = RecordingBill()
    async with doors.open(bill=bill) as agent:
        upstream.plays(status(401, "expired"), message())
        assert (await agent.say()).status == 200
        assert [seen.headers["authorization"] for seen in upstream.seen] == ["Bearer access-old", "Bearer access-number-1"]
        assert (bill.troubles, bill.renewals) == ([], 1)
        upstream.plays(status(401, "still"), status(401, "still"))
        assert (await agent.say()).status == 402
        assert bill.codes == ["MODEL_CREDENTIAL_REFUSED"]
        assert bill.troubles[0].message.endswith(": still; check the Claude login in TREADLE_CLAUDE_CREDENTIALS")
        assert len(upstream.refreshes) == 2
