"""What a person sees of events that `replay` never sends."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from server.cli.advice import advice
from server.cli.render import Renderer
from server.cli.screen import Screen
from server.cli.sessions import show_sessions
from server.kernel.errors import PushRefused
from server.kernel.push_refusal import PushRefusal
from treadle.session.v1 import event_pb2 as pb
from treadle.session.v1.session_pb2 import Session

RUNNING = pb.SubagentUpdated(agent_id="a", name="look around", state=pb.SUBAGENT_STATE_RUNNING)
DONE = pb.SubagentUpdated(agent_id="a", name="look around", state=pb.SUBAGENT_STATE_COMPLETED)


def shown(capsys: pytest.CaptureFixture[str], *events: pb.Event, past: Iterable[pb.Event] = ()) -> list[str]:
    renderer = Renderer(Screen())
    for event in past:
        renderer.recall(event)
    for event in events:
        renderer.show(event)
    return [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_a_call_is_shown_once_and_when_it_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    pending = pb.ToolCall(call_id="c", name="Bash", title="Bash", status=pb.TOOL_STATUS_PENDING)
    running = pb.ToolCall(call_id="c", name="Bash", title="ls", command="ls", status=pb.TOOL_STATUS_RUNNING)
    assert shown(capsys, pb.Event(tool_call=pending), pb.Event(tool_call=running), pb.Event(tool_call=running)) == ["$ ls"]


def approval(**fields: object) -> pb.Event:
    return pb.Event(approval_requested=pb.ApprovalRequested(request_id="r", title="May I?", **fields))  # type: ignore[arg-type]


def test_an_approval_shows_what_would_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    change = pb.FileChange(path="run.sh", operation=pb.FILE_OPERATION_MODIFIED, additions=1, patch="@@ -0,0 +1 @@\n+rm -rf /\n")
    write = approval(tool=pb.ToolCall(name="Write", input_json='{"file_path": "run.sh"}'), changes=[change])
    assert shown(capsys, write) == ["▸ May I?", "~ run.sh  +1 -0", "@@ -0,0 +1 @@", "+rm -rf /"]
    command = approval(tool=pb.ToolCall(name="Bash", command="make", input_json='{"command": "make"}'))
    assert shown(capsys, command) == ["▸ May I?", "make"]
    short = pb.ApprovalRequested(title="Bash: make", tool=pb.ToolCall(name="Bash", command="make"))
    assert shown(capsys, pb.Event(approval_requested=short)) == ["▸ Bash: make"]
    other = approval(tool=pb.ToolCall(name="Fetch", input_json='{"url": "http://x"}'))
    assert shown(capsys, other) == ["▸ May I?", '{"url": "http://x"}']


def test_a_question_is_not_told_as_a_call_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    call = pb.ToolCall(call_id="c", name="anybody's tool", tool_kind=pb.TOOL_KIND_ASK, status=pb.TOOL_STATUS_RUNNING)
    asked = pb.Event(question_requested=pb.QuestionRequested(questions=[pb.Question(text="Which?", options=[pb.QuestionOption(id="red")])]))
    assert shown(capsys, pb.Event(tool_call=call), asked) == ["▸ Which?", "red"]


@pytest.mark.parametrize(
    "fields",
    [
        {"changes": [pb.FileChange(path="a", patch="+x\n", patch_truncated=True)]},
        {"changes": [pb.FileChange(path="a", patch_truncated=True)]},
        {"changes": [pb.FileChange(path="a", binary=True)]},
        {"tool": pb.ToolCall(command="make", input_json='{"truncated": true}')},
    ],
)
def test_an_approval_says_when_not_all_is_shown(capsys: pytest.CaptureFixture[str], fields: dict[str, object]) -> None:
    assert shown(capsys, approval(**fields))[-1] == "this is not all of it: the rest is too large, or no text"


def test_what_was_used_is_what_the_server_counted(capsys: pytest.CaptureFixture[str]) -> None:
    def used(kind: pb.ActorKind) -> pb.Event:
        return pb.Event(actor=pb.Actor(kind=kind), usage_updated=pb.UsageUpdated(input_tokens=1000, output_tokens=1))

    both = [used(pb.ACTOR_KIND_SERVER), used(pb.ACTOR_KIND_AGENT), pb.Event(turn_completed=pb.TurnCompleted())]
    claude, replay = (shown(capsys, pb.Event(turn_started=pb.TurnStarted(provider=name)), *both) for name in ("claude", "replay"))
    assert "tokens    1,000 in, 1 out" in claude
    assert "tokens    2,000 in, 2 out (as recorded; none were used now)" in replay


def turn(number: int, command: str) -> list[pb.Event]:
    """As agents do it that count what they do anew in each turn."""
    call = pb.ToolCall(call_id="call-1", name="Bash", command=command, status=pb.TOOL_STATUS_RUNNING)
    said = pb.Message(role=pb.ROLE_ASSISTANT, final=True, parts=[pb.Part(text=f"ran {command}")])
    started = pb.TurnStarted(number=number, provider="replay")
    return [pb.Event(turn_started=started), pb.Event(item_id="call-1", tool_call=call), pb.Event(item_id="message-2", message=said)]


def test_each_turn_has_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *turn(1, "ls"), *turn(2, "pwd"))
    assert [line for line in lines if line.startswith(("$", "ran"))] == ["$ ls", "ran ls", "$ pwd", "ran pwd"]
    assert "$ pwd" in shown(capsys, *turn(2, "pwd"), past=turn(1, "ls"))


def test_a_call_of_which_only_the_name_was_known_is_shown_after_a_return(capsys: pytest.CaptureFixture[str]) -> None:
    pending = pb.ToolCall(call_id="c", name="Bash", title="Bash", status=pb.TOOL_STATUS_PENDING)
    written = pb.ContentDelta(channel=pb.CHANNEL_TOOL_INPUT, data="{")
    running = pb.ToolCall(call_id="c", name="Bash", title="ls", command="ls", status=pb.TOOL_STATUS_RUNNING)
    past = [pb.Event(item_id="c", tool_call=pending), pb.Event(item_id="c", content_delta=written)]
    assert shown(capsys, pb.Event(item_id="c", tool_call=running), past=past) == ["$ ls"]
    assert shown(capsys, pb.Event(item_id="c", tool_call=running), past=[*past, pb.Event(item_id="c", tool_call=running)]) == []


def test_an_edit_that_fails_says_which_file(capsys: pytest.CaptureFixture[str]) -> None:
    edit = pb.ToolCall(call_id="e", name="Edit", title="Edit a.txt", tool_kind=pb.TOOL_KIND_EDIT, status=pb.TOOL_STATUS_RUNNING)
    failed = pb.ToolResult(call_id="e", status=pb.TOOL_OUTCOME_FAILED, parts=[pb.Part(text="not found")])
    lines = ["· Edit a.txt", "not found", "failed"]
    assert shown(capsys, pb.Event(tool_call=edit), pb.Event(tool_result=failed)) == lines
    assert shown(capsys, pb.Event(tool_result=failed), past=[pb.Event(tool_call=edit)]) == lines
    done = pb.ToolResult(call_id="e", status=pb.TOOL_OUTCOME_COMPLETED, parts=[pb.Part(text="edited")])
    assert shown(capsys, pb.Event(tool_call=edit), pb.Event(tool_result=done)) == [], "its file_changed tells it"


def failing(message: str) -> list[pb.Event]:
    """As when a model's provider refuses for good: the gateway tells it, the agent ends with it, and so does the turn."""
    gateway = pb.Error(code="MODEL_OVERLOADED", message=message, provider_status=529)
    agent = pb.Error(code="PROVIDER", message=message, fatal=True)
    end = pb.TurnCompleted(status=pb.TURN_STATUS_FAILED, code=pb.TURN_CODE_PROVIDER, message=message)
    return [pb.Event(error=gateway), pb.Event(error=agent), pb.Event(turn_completed=end)]


def test_why_a_model_failed_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, again = (pb.Event(turn_started=pb.TurnStarted(number=number)) for number in (1, 2, 3))
    assert shown(capsys, first, *failing("529: busy"))[1:] == ["MODEL_OVERLOADED: 529: busy", "failed in 0.0 s"]
    # What was told by an earlier command was told; what an earlier turn ended with was not told of this one.
    assert shown(capsys, *failing("529: busy")[1:], past=[first, *failing("529: busy")[:1]]) == ["failed in 0.0 s"]
    lines = shown(capsys, first, *failing("529: busy"), second, *failing("529: busy")[1:], again, *failing("no such file")[1:])
    assert [line for line in lines if line.startswith("failed")] == [
        "failed in 0.0 s",
        "failed in 0.0 s: 529: busy",
        "failed in 0.0 s: no such file",
    ]


def test_subagents_are_shown_when_they_begin_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    events = [pb.Event(subagent_updated=update) for update in (RUNNING, RUNNING, DONE, DONE)]
    assert shown(capsys, *events) == ["⇢ sub-agent: look around", "⇠ sub-agent: look around  completed"]


def test_what_the_agent_forgets_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    auto = pb.ContextCompacted(trigger=pb.COMPACTION_TRIGGER_AUTO, tokens_before=150_000)
    reset = pb.ContextCompacted(trigger=pb.COMPACTION_TRIGGER_RESET)
    first, second = shown(capsys, pb.Event(context_compacted=auto), pb.Event(context_compacted=reset))
    assert "150,000 tokens" in first
    assert "anew" in second


def test_a_host_that_was_refused_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    for decision, label in ((pb.NETWORK_DECISION_DENIED, "refused"), (pb.NETWORK_DECISION_ALLOWED, "network")):
        access = pb.NetworkAccess(host="a.test", port=443, decision=decision, reason="r", message="a.test:443: it does not answer")
        (line,) = shown(capsys, pb.Event(network_access=access))
        assert line.split() == [label, "a.test:443:", "it", "does", "not", "answer"]


def test_what_nobody_knows_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    raw = pb.ProviderRaw(provider="claude", native_type="telepathy", payload="{}")
    assert shown(capsys, pb.Event(provider_raw=raw)) == ["· claude said something that this version does not know: telepathy"]


def test_a_withdrawn_message_is_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    delta = pb.ContentDelta(channel=pb.CHANNEL_TEXT, data="half")
    withdrawn = pb.Message(role=pb.ROLE_ASSISTANT, final=True)
    whole = pb.Message(role=pb.ROLE_ASSISTANT, final=True, parts=[pb.Part(text="whole")])
    assert shown(
        capsys,
        pb.Event(item_id="m1", content_delta=delta),
        pb.Event(item_id="m1", message=withdrawn),
        pb.Event(item_id="m2", message=whole),
    ) == ["whole"]


PROVIDER, ESTIMATE = pb.COST_SOURCE_PROVIDER, pb.COST_SOURCE_ESTIMATE


@pytest.mark.parametrize(
    ("uses", "lines"),
    [
        ([{"cost_micros": 30_000, "cost_source": ESTIMATE}], ["model     m", "tokens    10 in, 2 out", "cost      $0.03 (estimate)"]),
        ([{"cost_micros": 1_234_000, "cost_source": PROVIDER}], ["model     m", "tokens    10 in, 2 out", "cost      $1.23"]),
        ([{"cost_micros": 1_250, "cost_source": PROVIDER}], ["model     m", "tokens    10 in, 2 out", "cost      $0.0013"]),
        ([{}], ["model     m", "tokens    10 in, 2 out", "cost      unknown: no price is known for m"]),
        (
            [{"cost_micros": 20_000, "cost_source": PROVIDER}, {"model": "n", "cache_read_tokens": 90}],
            ["model     m, n", "tokens    110 in (90 of them cached), 4 out", "cost      $0.02, and more: no price is known for n"],
        ),
        (
            [{"partial": True, "cost_micros": 20_000, "cost_source": PROVIDER}],
            ["model     m", "tokens    10 in, 2 out (estimate)", "cost      $0.02 (estimate)"],
        ),
        (
            [{"partial": True}, {}],
            ["model     m", "tokens    20 in, 4 out (in part an estimate)", "cost      unknown: no price is known for m"],
        ),
    ],
)
def test_a_turn_ends_with_what_it_used_and_cost(capsys: pytest.CaptureFixture[str], uses: list[dict], lines: list[str]) -> None:
    server = pb.Actor(kind=pb.ACTOR_KIND_SERVER)
    used = [
        pb.Event(actor=server, usage_updated=pb.UsageUpdated(**{"model": "m", "input_tokens": 10, "output_tokens": 2} | use))
        for use in uses
    ]
    events = [pb.Event(turn_started=pb.TurnStarted(provider="claude")), *used, pb.Event(turn_completed=pb.TurnCompleted(commit=""))]
    assert shown(capsys, *events)[-len(lines) :] == lines


def test_a_turn_that_waits_says_how_many_are_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    def waiting(ahead: int, reason: pb.WaitReason) -> pb.Event:
        told = pb.Waiting(ahead=ahead, reason=reason)
        return pb.Event(session_updated=pb.SessionUpdated(state=pb.SESSION_STATE_QUEUED, waiting=told))

    assert shown(
        capsys,
        waiting(3, pb.WAIT_REASON_PLACE),
        waiting(0, pb.WAIT_REASON_PLACE),
        waiting(1, pb.WAIT_REASON_USER_LIMIT),
        waiting(0, pb.WAIT_REASON_TENANT_LIMIT),
        pb.Event(session_updated=pb.SessionUpdated(state=pb.SESSION_STATE_PROVISIONING)),
    ) == [
        "waiting   3 before you",
        "waiting   you are your tenant's next",
        "waiting   1 before you; as many turns of yours run as may",
        "waiting   you are your tenant's next; as many turns of your tenant run as may",
    ]


def test_a_refused_push_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in pb.PushRefusal.values():
        refused = pb.GitUpdated(action=pb.GIT_ACTION_PUSH_FAILED, message="GH006", refusal=kind, sha="c" * 40)
        lines = shown(capsys, pb.Event(session_id="s", git_updated=refused))
        assert lines[0] == "push      refused, the commit is kept: GH006"
        why = kind not in (pb.PUSH_REFUSAL_UNSPECIFIED, pb.PUSH_REFUSAL_OTHER)
        assert len(lines) >= 2 + why, kind
        assert "push s" in " ".join(lines[1:])


def test_a_branch_that_could_not_be_made_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to push yet."""
    url = "https://github.com/acme/app.git"
    refused = pb.GitUpdated(action=pb.GIT_ACTION_PUSH_FAILED, message="403", refusal=pb.PUSH_REFUSAL_PERMISSION, repository=url)
    first, *more = shown(capsys, pb.Event(session_id="s", git_updated=refused))
    assert first == "push      refused: 403"
    assert f"credential add {url}" in more[1]
    assert "run --session s REQUEST" in more[2]


def test_a_refused_token_is_replaced_wherever_the_refusal_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    url = "https://github.com/acme/app.git"
    show_sessions([Session(session_id="s", repository_url=url, state=pb.SESSION_STATE_IDLE, head_commit="c" * 40, unpushed_commit="c" * 40,
                           push_refusal=pb.PUSH_REFUSAL_AUTHENTICATION)], None)  # fmt: skip
    listed = capsys.readouterr().out
    error = PushRefused("403", PushRefusal.AUTHENTICATION, session_id="s", repository=url, commit="c" * 40)
    pushed = "\n".join(advice("PUSH_REFUSED", error.metadata, None))
    for told in (listed, pushed):
        assert f"credential add {url}" in told
        assert "push s" in told


def test_a_session_is_listed_with_its_pull_request(capsys: pytest.CaptureFixture[str]) -> None:
    pull = pb.PullRequestUpdated(number=7, url="https://github.com/acme/app/pull/7", state=pb.PULL_REQUEST_STATE_OPEN, draft=True)
    listed = [Session(session_id="a", title="A note", pull_request=pull), Session(session_id="b", title="Another")]
    show_sessions(listed, None)
    out = capsys.readouterr().out
    assert "pull request #7 open, a draft: https://github.com/acme/app/pull/7\n" in out
    assert out.count("pull request") == 1


@pytest.mark.parametrize("kind", ["BRANCH_EXISTS", "DEFAULT_BRANCH", "PROTECTED_BRANCH", "HOOK_DECLINED"])
def test_a_branch_that_could_not_be_made_there_gets_another_name(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """Asking again alone would fail alike, for ever."""
    refused = pb.GitUpdated(action=pb.GIT_ACTION_PUSH_FAILED, message="no", refusal=f"PUSH_REFUSAL_{kind}")
    lines = shown(capsys, pb.Event(session_id="s", git_updated=refused))
    assert "push s --branch NAME" in lines[-2]
    assert "run --session s REQUEST" in lines[-1]
    assert "commits hold" not in " ".join(lines)


def test_what_others_pushed_is_merged_by_a_turn(capsys: pytest.CaptureFixture[str]) -> None:
    refused = pb.GitUpdated(action=pb.GIT_ACTION_PUSH_FAILED, message="no", refusal=pb.PUSH_REFUSAL_NON_FAST_FORWARD, sha="c" * 40)
    lines = shown(capsys, pb.Event(session_id="s", git_updated=refused))
    assert "run --session s REQUEST" in lines[-2]
    assert "push s --branch NAME" in lines[-1]


def test_a_conflict_is_told_once_with_the_ways_out(capsys: pytest.CaptureFixture[str]) -> None:
    refused = pb.GitUpdated(action=pb.GIT_ACTION_PUSH_FAILED, message="both changed a", refusal=pb.PUSH_REFUSAL_CONFLICT, sha="c" * 40)
    ended = pb.TurnCompleted(status=pb.TURN_STATUS_FAILED, message="both changed a")
    told = " ".join(shown(capsys, pb.Event(session_id="s", git_updated=refused), pb.Event(session_id="s", turn_completed=ended)))
    assert told.count("both changed a") == 1
    assert all(word in told for word in ("files put s PATH", "restore s --at", "history s", "run --session s", "push s --branch NAME"))


def test_what_becomes_of_a_pull_request_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    pull = {"number": 7, "url": "https://github.com/acme/app/pull/7", "head": "treadle/note", "base": "main", "head_commit": "c" * 40}
    assert shown(
        capsys,
        pb.Event(pull_request_updated=pb.PullRequestUpdated(state=pb.PULL_REQUEST_STATE_OPEN, draft=True, **pull)),
        pb.Event(pull_request_updated=pb.PullRequestUpdated(state=pb.PULL_REQUEST_STATE_MERGED, **pull)),
    ) == [
        "pull      #7 open, a draft, treadle/note into main at cccccccccccc",
        "https://github.com/acme/app/pull/7",
        "pull      #7 merged, treadle/note into main at cccccccccccc",
        "https://github.com/acme/app/pull/7",
    ]


@pytest.mark.parametrize(("subjects", "line"), [(["one"], "one"), (["one", "two", "three"], "three (and 2 before it)")])
def test_how_many_commits_there_are_is_said(capsys: pytest.CaptureFixture[str], subjects: list[str], line: str) -> None:
    made = [pb.GitUpdated(action=pb.GIT_ACTION_COMMITTED, message=f"{subject}\n\nwhy") for subject in subjects]
    end = pb.TurnCompleted(status=pb.TURN_STATUS_COMPLETED, commit="c" * 40, pushed=True)
    lines = shown(capsys, *(pb.Event(git_updated=git) for git in made), pb.Event(turn_completed=end))
    assert f"commit    cccccccccccc  {line}" in lines
