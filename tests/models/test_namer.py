"""Names by a small model: cheap, quick, and never worth an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from support.fake_upstream import FakeUpstream, message, silence, status
from support.model_door import RecordingBill

from server.config import Settings
from server.kernel import naming
from server.kernel.model_use import Budget, Purpose
from server.kernel.ports.namer import Namer, Names
from server.models.gateway import open_models


@asynccontextmanager
async def namer(settings: dict[str, Any]) -> AsyncIterator[Namer]:
    async with open_models(Settings(**settings)) as models:
        assert models.namer is not None
        yield models.namer


async def test_a_session_gets_a_title_and_a_branch(settings: dict[str, Any], upstream: FakeUpstream) -> None:
    upstream.plays(message("TITLE: Fix the login page\nBRANCH: fix-login-page\n"))
    bill = RecordingBill()
    async with namer(settings) as asks:
        assert await asks.session("please fix it " * 1000, base_branch="main", bill=bill) == Names("Fix the login page", "fix-login-page")
    (seen,) = upstream.seen
    assert (seen.path, seen.body["model"]) == ("/v1/messages", "claude-haiku-4-5")
    assert len(seen.raw) < 2500, "not the whole prompt"
    assert [(use.purpose, use.partial) for use in bill.uses] == [(Purpose.NAMING, False)]


async def test_where_only_openai_has_a_key_its_model_names(settings: dict[str, Any], upstream: FakeUpstream) -> None:
    upstream.plays(message("**Title**: Do it\n- branch: `do-it`"), message("Make it work"))
    bill = RecordingBill()
    async with namer(settings | {"anthropic_api_key": SecretStr("")}) as asks:
        assert await asks.session("x", base_branch="main", bill=bill) == Names("Do it", "`do-it`")
        assert await asks.commit("diff", bill=bill) == "Make it work"
    assert [(seen.path, seen.body["store"]) for seen in upstream.seen] == [("/v1/responses", False)] * 2


@pytest.mark.parametrize("said", ["", "I will not", "BRANCH: only", "TITLE:\n"])
async def test_an_answer_without_a_title_is_none(settings: dict[str, Any], upstream: FakeUpstream, said: str) -> None:
    upstream.plays(message(said))
    async with namer(settings) as asks:
        assert await asks.session("x", base_branch="main", bill=RecordingBill()) is None


async def test_it_never_takes_longer_than_its_limit(settings: dict[str, Any], upstream: FakeUpstream) -> None:
    upstream.default = silence(asyncio.Event())
    bill = RecordingBill()
    async with namer(settings | {"naming_seconds": 0.2}) as asks:
        begun = time.monotonic()
        assert await asks.session("x", base_branch="main", bill=bill) is None
        assert await asks.commit("x", bill=bill) is None
        assert time.monotonic() - begun < 2
    assert [use.partial for use in bill.uses] == [True, True], "what was asked may have cost something"


@pytest.mark.parametrize("code", [400, 401, 404, 500, 529])
async def test_a_failure_is_no_error_and_no_event(settings: dict[str, Any], upstream: FakeUpstream, code: int) -> None:
    upstream.default = status(code)
    bill = RecordingBill()
    async with namer(settings | {"model_retries": 0}) as asks:
        assert await asks.commit("x", bill=bill) is None
    assert (bill.troubles, bill.uses, bill.unsettled) == ([], [], 0)


async def test_its_limit_costs_nothing_while_the_provider_only_refuses(settings: dict[str, Any], upstream: FakeUpstream) -> None:
    upstream.default = status(529, headers={"retry-after": "30"})
    bill = RecordingBill()
    async with namer(settings | {"naming_seconds": 1}) as asks:
        assert await asks.commit("x", bill=bill) is None
    assert len(upstream.seen) == 1
    assert (bill.uses, bill.unsettled) == ([], 0)


async def test_an_empty_purse_names_nothing(settings: dict[str, Any], upstream: FakeUpstream) -> None:
    bill = RecordingBill(Budget(tokens=1))
    async with namer(settings) as asks:
        await asks.commit("x", bill=bill)
        upstream.seen.clear()
        assert await asks.commit("x", bill=bill) is None
    assert upstream.seen == []


async def test_it_can_be_switched_off(settings: dict[str, Any]) -> None:
    for changes in ({"naming": False}, {"naming_model": "gpt-5-nano", "openai_api_key": SecretStr("")}):
        async with open_models(Settings(**settings | changes)) as models:
            assert models.namer is None


@pytest.mark.parametrize(
    ("title", "branch"),
    [
        ("'\"`Quoted`\"'", "../../etc/passwd"),
        ("two\nlines", "--upload-pack=touch /tmp/x"),
        ("\x1b[31mred\x07", "refs/heads/main"),
        ("x" * 500, "a..b//c@{d}.lock"),
        ("\u202eevil", "main; rm -rf /"),
        ("", "\0"),
        ("   ", "ünïcödé"),
    ],
)
def test_hostile_names_are_cleaned_by_the_same_rules_as_a_users_words(title: str, branch: str) -> None:
    cleaned = naming.title_from(title)
    assert 0 < len(cleaned) <= 80
    assert cleaned.isprintable()
    assert "\n" not in cleaned
    name = naming.branch_from("treadle/", branch, "01a205c7-98df-7571-b198-54efc63eb7f2")
    assert name.startswith("treadle/")
    assert name.endswith("-c63eb7f2")
    naming.check_branch_name(name)
    assert len(naming.commit_message_from(title, 1).splitlines()[0]) <= 71
