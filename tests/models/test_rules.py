"""What may stand in a request: the real agents' pass, and what reaches beyond the conversation does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.model_door import ask, ask_openai

from server.models import anthropic_rules, openai_rules
from server.models.headers import passed_betas
from server.models.rules import MOST_OUTPUT, Refused, Rules

RULES = Rules(["claude-*", "gpt-*"], frozenset())
HERE = Path(__file__).parent
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 40_000}}


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*blocks]}]}


def anthropic(**fields: Any) -> dict[str, Any]:
    return json.loads(anthropic_rules.check(json.dumps(ask() | fields).encode(), RULES).body)  # type: ignore[no-any-return]


def openai(**fields: Any) -> dict[str, Any]:
    return json.loads(openai_rules.check(json.dumps(ask_openai() | fields).encode(), RULES).body)  # type: ignore[no-any-return]


def test_what_claude_code_sends_passes_as_it_is() -> None:
    """Recorded from Claude Code 2.1.330: 12 tools, a system message in the conversation, a tool's result. Texts are shortened."""
    data = (HERE / "claude_code.json").read_bytes()
    checked = anthropic_rules.check(data, RULES)
    assert json.loads(checked.body) == json.loads(data)
    assert (checked.model, checked.streams, len(json.loads(data)["tools"])) == ("claude-sonnet-4-5", True, 12)
    assert 0.7 < checked.expected.input / (len(checked.body) / 4) < 1.1


def test_what_codex_sends_passes_without_its_telemetry() -> None:
    """Recorded from Codex 0.163, its web search off."""
    data = (HERE / "codex.json").read_bytes()
    expected = json.loads(data)
    del expected["client_metadata"]
    assert json.loads(openai_rules.check(data, RULES).body) == expected


@pytest.mark.parametrize(
    "fields",
    [
        said({"type": "text", "text": "x"}, IMAGE),
        said({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, IMAGE]}),
        said({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "x"}]}),
        said({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}),
        said({"type": "document", "source": {"type": "content", "content": [IMAGE]}}),
        said({"type": "search_result", "source": "https://example.org", "title": "t", "content": [{"type": "text", "text": "x"}]}),
        said({"type": "tool_use", "id": "t", "name": "f", "input": {"source": {"type": "url", "url": "http://only.an.argument"}}}),
        said({"type": "thinking", "thinking": "x", "signature": "y"}, {"type": "redacted_thinking", "data": "z"}),
        said({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"name": "x", "input_schema": {}}}}),
        said({"type": "tool_removal", "tool": {"type": "tool_reference", "name": "x"}}),
        {"tools": [{"name": "web_search", "input_schema": {}}, {"type": "custom", "name": "x"}, {"type": "bash_20250124", "name": "bash"}]},
        {"tools": [{"type": "text_editor_20250728", "name": "e"}, {"name": "y", "allowed_callers": ["direct"], "defer_loading": True}]},
        {"service_tier": "standard_only", "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "tools": None},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}, {"type": "compact_20260112"}]}},
    ],
)
def test_a_clients_own_tools_and_data_pass_in_anthropics_format(fields: dict[str, Any]) -> None:
    assert anthropic(**fields) == ask() | fields


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools: 'web_search_20250305'"),
        ({"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, "would run at the provider"),
        ({"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}, "would run at the provider"),
        ({"tools": [{"type": "computer_20250124", "name": "computer"}]}, "would run at the provider"),
        ({"tools": [{"type": "tool_search_tool_regex_20251119", "name": "t"}]}, "would run at the provider"),
        ({"tools": [{"type": "tool_search_tool_bm25_20251119", "name": "t"}]}, "would run at the provider"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "would run at the provider"),
        ({"tools": [{"type": "advisor_20260301", "name": "a"}]}, "would run at the provider"),
        ({"tools": [{"type": "bash_20250124x"}]}, "would run at the provider"),
        ({"tools": [{"type": ["custom"]}]}, "would run at the provider"),
        ({"tools": [{"name": "x", "allowed_callers": ["code_execution_20250825"]}]}, "would let code at the provider"),
        ({"tools": {"type": "web_search_20250305"}}, "a list is needed"),
        ({"tools": ["web_search_20250305"]}, "a list of objects"),
        ({"mcp_servers": [{"type": "url", "url": "https://evil.example"}]}, "mcp_servers"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"container": "container_1"}, "container"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"speed": "fast"}, "speed"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"something_new": 1}, "something_new: this field is not known"),
        ({"context_management": {"edits": [{"type": "fetch_20300101"}]}}, "not known here"),
        ({"context_management": {"store": True}}, "only edits"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "is no role"),
        ({"messages": [{"role": {}, "content": "x"}]}, "is no role"),
        ({"service_tier": []}, "is not allowed"),
        ({"stream": "yes"}, "stream"),
        ({"system": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}, "would fetch"),
        (said({"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}}), "would fetch"),
        (said({"type": "image", "source": {"type": "file", "file_id": "file_of_another_tenant"}}), "would fetch"),
        (said({"type": "document", "source": {"type": "url", "url": "http://x"}}), "would fetch"),
        (
            said({"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": {"type": "url"}}]}}),
            "would fetch",
        ),
        (said({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}), "would fetch"),
        (
            said({"type": "tool_result", "content": [{"type": "tool_result", "content": [{"type": "document", "source": {}}]}]}),
            "would fetch",
        ),
        (said({"type": "image"}), "a source is needed"),
        (said({"type": "search_result", "source": {"type": "url"}, "content": []}), "no name"),
        (said({"type": "container_upload", "file_id": "f"}), "not known here"),
        (said({"type": "mcp_tool_use", "name": "x"}), "not known here"),
        (said({"type": "server_tool_use", "name": "web_search"}), "not known here"),
        (said({"text": "without a type"}), "without a type"),
        (said({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"type": "web_search_20250305"}}}), "provider"),
        (said({"type": "tool_addition", "tool": {"type": "mcp_toolset"}}), "not known here"),
        (said({"type": "tool_addition"}), "a tool is needed"),
    ],
)
def test_what_reaches_beyond_the_conversation_is_refused_in_anthropics_format(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Refused) as refused:
        anthropic(**fields)
    assert complaint in str(refused.value)


def item(kind: str, **fields: Any) -> dict[str, Any]:
    return {"input": [{"type": kind, **fields}]}


def part(kind: str, **fields: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": kind, **fields}]}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "just text"},
        part("input_image", image_url="data:image/png;base64,AAAA"),
        part("input_file", filename="a.pdf", file_data="data:application/pdf;base64,AAAA"),
        item("function_call_output", call_id="c", output=[{"type": "input_text", "text": "x"}]),
        item("reasoning", summary=[{"type": "summary_text", "text": "x"}], encrypted_content="y"),
        item("shell_call_output", output=[{"stdout": "x", "outcome": {"type": "exit"}}]),
        {"tools": [{"type": "shell", "environment": {"type": "local"}}, {"type": "local_shell"}, {"type": "apply_patch"}]},
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}]},
        {"service_tier": "auto", "include": ["reasoning.encrypted_content"]},
    ],
)
def test_a_clients_own_tools_and_data_pass_in_openais_format(fields: dict[str, Any]) -> None:
    assert openai(**fields) == ask_openai(store=False) | fields


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"previous_response_id": "resp_of_another_tenant"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"something_new": 1}, "not known"),
        ({"include": ["web_search_call.action.sources"]}, "include"),
        ({"tools": [{"type": "web_search", "external_web_access": True}]}, "would run at the provider"),
        ({"tools": [{"type": "web_search_preview"}]}, "would run at the provider"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "would run at the provider"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "would run at the provider"),
        ({"tools": [{"type": "image_generation"}]}, "would run at the provider"),
        ({"tools": [{"type": "computer_use_preview"}]}, "would run at the provider"),
        ({"tools": [{"type": "mcp", "server_url": "https://evil.example"}]}, "would run at the provider"),
        ({"tools": [{"type": "shell"}]}, "would run at the provider"),
        ({"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, "would run at the provider"),
        ({"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]}, "would run at the provider"),
        (item("item_reference", id="msg_of_another_tenant"), "not known here"),
        (item("mcp_call"), "not known here"),
        (item("computer_call_output", output={"type": "computer_screenshot", "file_id": "f"}), "not known here"),
        (part("input_image", image_url="https://evil.example/x.png"), "would fetch"),
        (part("input_image", file_id="f"), "would fetch"),
        (part("input_file", file_url="https://evil.example"), "would fetch"),
        (part("input_file", file_id="f", file_data="x"), "would fetch"),
        (part("input_audio"), "not known here"),
        (item("function_call_output", output=[{"type": "input_image", "image_url": "http://x"}]), "would fetch"),
        ({"input": [{"role": "robot", "content": "x"}]}, "is no role"),
        ({"input": [{"role": {}, "content": "x"}]}, "is no role"),
        ({"service_tier": {}}, "is not allowed"),
        ({"include": [[]]}, "is not known here"),
        ({"include": 5}, "a list is needed"),
        ({"input": [{"content": "x"}]}, "without a type"),
    ],
)
def test_what_reaches_beyond_the_conversation_is_refused_in_openais_format(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Refused) as refused:
        openai(**fields)
    assert complaint in str(refused.value)


def test_an_image_is_not_counted_as_text() -> None:
    checked = anthropic_rules.check(json.dumps(ask() | said(IMAGE)).encode(), RULES)
    assert 1600 < checked.expected.input < 1700


@pytest.mark.parametrize(("asked", "expected"), [({}, 100), ({"max_tokens": 32_000}, 32_000), ({"max_tokens": 10**12}, MOST_OUTPUT)])
def test_the_output_that_is_allowed_is_expected(asked: dict[str, Any], expected: int) -> None:
    assert anthropic_rules.check(json.dumps(ask() | asked).encode(), RULES).expected.output == expected


def test_without_a_limit_all_that_a_model_can_write_is_expected() -> None:
    assert openai_rules.check(json.dumps(ask_openai()).encode(), RULES).expected.output == MOST_OUTPUT
    assert openai_rules.check(json.dumps(ask_openai(max_output_tokens=5)).encode(), RULES).expected.output == 5


@pytest.mark.parametrize(
    ("thinking", "hidden"),
    [(None, True), ({"type": "disabled"}, False), ({"type": "adaptive", "display": "omitted"}, True), ({"type": "enabled"}, True)],
)
def test_a_model_that_thinks_hides_output(thinking: Any, hidden: bool) -> None:
    assert anthropic_rules.check(json.dumps(ask(thinking=thinking)).encode(), RULES).expected.hidden is hidden


def test_a_summary_of_the_conversation_is_expected_to_be_paid_for() -> None:
    edits = {"context_management": {"edits": [{"type": "compact_20260112"}]}}
    plain, summarised = (anthropic_rules.check(json.dumps(ask() | more).encode(), RULES).expected for more in ({}, edits))
    assert [each.output for each in plain.most] == [100]
    assert [each.output for each in summarised.most] == [100, 100], "each round by itself: a price may go by its length"
    assert all(each.input > plain.input for each in summarised.most)


@pytest.mark.parametrize("limit", ["5", 1.5, True, -1, {}, []])
def test_a_limit_that_is_no_number_is_refused(limit: Any) -> None:
    with pytest.raises(Refused, match="max_tokens: a number of tokens is needed"):
        anthropic(max_tokens=limit)


def test_an_operator_can_allow_further_fields() -> None:
    rules = Rules(["claude-*"], frozenset({"something_new"}))
    assert b"something_new" in anthropic_rules.check(json.dumps(ask(something_new=1)).encode(), rules).body
    with pytest.raises(Refused):
        anthropic_rules.check(json.dumps(ask(mcp_servers=[])).encode(), Rules(["*"], frozenset({"mcp_servers"})))


def test_what_claude_code_switches_on_passes_but_for_the_credential() -> None:
    betas = (
        "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,mid-conversation-tool-changes-2026-07-01,"
        "thinking-token-count-2026-05-13,advanced-tool-use-2025-11-20,effort-2025-11-24,thinking-display-updates-2026-08-18"
    )
    assert passed_betas(betas) == betas
    assert passed_betas("oauth-2025-04-20,mcp-client-2025-11-20,skills-2025-10-02,web-fetch-2025-09-10,x\r\ny: z,effort-1") == "effort-1"
