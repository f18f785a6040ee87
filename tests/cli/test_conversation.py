"""`treadle send`, `inputs` and `answer`, and answering in the terminal that watches."""

from __future__ import annotations

import asyncio
import json
import re
import signal

import pytest
from support.terminal import on_a_terminal

from server.cli.questions import NoAnswer, parse, prompts
from treadle.session.v1 import event_pb2

ASKING = """{"ask": "Which colour?", "choices": ["red", "blue"]}
{"say": "it is {answer} {note}"}
"""
APPROVING = """{"approve": "Run the tests", "command": "make test"}
{"say": "answered {answer}"}
"""
WAITING = """{"run": "while [ ! -e go ]; do sleep 0.02; done; rm go"}
"""
LISTENING = """{"say": "listening"}
{"listen": 1}
{"say": "heard {input}"}
"""


async def test_without_a_terminal_the_command_that_answers_is_shown(shared, find_session) -> None:
    async with shared.started("run", *shared.add_recording("asking", ASKING), "Ask") as run:
        await run.says("Which colour?")
        await run.says("red · blue")
        await run.says("the agent waits for an answer", within="err")
        await run.says(" red --request ", within="err")
        session = find_session(run.out)
        command = re.search(r"treadle (answer .* red --request [0-9a-f]{16})", run.err)
        assert command, run.err
        unsaid = await shared.run("answer", session)
        assert unsaid.code == 2
        assert "1 red" in unsaid.out
        assert "say what to answer" in unsaid.err
        wrong = await shared.run("answer", session, "green")
        assert wrong.code == 2
        assert "'green' is none of: red, blue" in wrong.err
        answered = await shared.run(*command[1].split(), "--note", "as ever")
        assert answered.out == "answered; the agent goes on\n"
        ended = await run.ended()
    assert ended.code == 0, ended
    assert "it is red as ever" in ended.out
    assert "✓ red  by local  (as ever)" in ended.out
    late = await shared.run("answer", session, "red")
    assert late.code == 2
    assert "waits for no answer" in late.err


async def test_an_approval_is_asked_for_only_when_wanted(shared, find_session) -> None:
    recording = shared.add_recording("approving", APPROVING)
    unasked = await shared.run("run", *recording, "Go")
    assert "Run the tests" not in unasked.out
    async with shared.started("run", "--ask", *recording, "Go") as run:
        await run.says("make test")
        # Who answers elsewhere sees it, too.
        assert "make test" in (await shared.run("answer", find_session(run.out))).out
        declined = await shared.run("answer", find_session(run.out), "--decline")
        assert declined.out == "declined; the agent goes on\n"
        ended = await run.ended()
    assert "answered declined" in ended.out


async def test_on_a_terminal_it_is_asked_and_answered(shared) -> None:
    async with on_a_terminal(shared, "run", *shared.add_recording("asking-here", ASKING), "Ask") as terminal:
        await terminal.says("answer> ")
        assert terminal.shown.count("Which colour?") == 1
        assert "▸ Which colour?\n  1 red\n  2 blue\nanswer> " in terminal.shown
        await terminal.types("green\n")
        await terminal.says("'green' is none of: red, blue")
        await terminal.says("answer> ", times=2)
        await terminal.types("2\n")
        await terminal.says("it is blue")
        await terminal.says("completed")


async def test_after_a_restart_of_the_server_it_is_asked_again(home) -> None:
    async with home.up() as up:
        listen = (home.data_dir / "address").read_text().strip()
        async with on_a_terminal(home, "run", *home.add_recording("asking-on", ASKING), "Ask") as terminal:
            await terminal.says("answer> ")
            await up.stop(signal.SIGTERM)
            async with home.up(listen=listen):
                await terminal.says("▸ Which colour?\n  1 red\n  2 blue\nanswer> ", times=2)
                await terminal.types("blue\n")
                await terminal.says("it is blue")
                await terminal.process.wait()


async def test_leave_that_is_asked_for_again_shows_the_command_again(shared) -> None:
    async with on_a_terminal(shared, "run", "--ask", *shared.add_recording("leave-again", APPROVING), "Go") as terminal:
        await terminal.says("answer> ")
        assert terminal.shown.count("make test") == 1
        await terminal.types("perhaps\n")
        await terminal.says("'perhaps' is none of: yes, no, allow")
        await terminal.says("answer> ", times=2)
        assert terminal.shown.count("▸ Run the tests\n    make test\n") == 2
        await terminal.types("yes\n")
        await terminal.says("answered allow")


async def test_what_was_typed_before_it_was_asked_is_no_answer(shared) -> None:
    async with on_a_terminal(shared, "run", "--ask", *shared.add_recording("ahead", WAITING + APPROVING), "Go") as terminal:
        await terminal.says("$ while")
        await terminal.types("allow\n")
        shared.open_gate()
        await terminal.says("answer> ")
        await terminal.types("reject\n")
        await terminal.says("answered reject")


async def test_what_was_typed_for_one_request_does_not_answer_the_next(shared, find_session) -> None:
    async with on_a_terminal(shared, "run", *shared.add_recording("twice", ASKING + ASKING), "Ask") as terminal:
        await terminal.says("answer> ")
        await terminal.types("red")
        # Somebody else is quicker than the return key.
        assert (await shared.run("answer", find_session(terminal.shown), "blue")).code == 0
        await terminal.says("it is blue")
        await terminal.says("answer> ", times=2)
        await terminal.types("blue\n")
        await terminal.says("it is blue", times=2)


async def test_the_prompt_is_shown_again_below_what_comes_meanwhile(shared, find_session) -> None:
    async with on_a_terminal(shared, "run", *shared.add_recording("meanwhile", ASKING), "Ask") as terminal:
        await terminal.says("answer> ")
        assert (await shared.run("send", find_session(terminal.shown), "Then this")).code == 0
        await terminal.says("answer> ", times=2)
        assert terminal.shown.endswith("answer> \n  queued    Then this\nanswer> ")
        await terminal.types("red\n")
        await terminal.says("it is red")


async def test_what_is_asked_is_said_once_by_the_command_that_answers(shared, find_session) -> None:
    async with shared.started("run", "--ask", *shared.add_recording("once", APPROVING), "Go") as run:
        await run.says("make test")
        async with on_a_terminal(shared, "answer", find_session(run.out)) as terminal:
            await terminal.says("answer> ")
            assert terminal.shown.count("Run the tests") == 1
            await terminal.types("n\n")
        await run.says("answered reject")
        await run.ended()


async def test_send_queues_and_inputs_lists_and_takes_back(shared, find_session) -> None:
    async with shared.started("run", *shared.add_gated_recording(), "Take your time") as run:
        await run.says("first.txt")
        session = find_session(run.out)
        sent = await shared.run("send", session, "Then this")
        assert sent.code == 0, sent
        assert sent.out.startswith("queued;")
        await run.says("queued    Then this")
        more = json.loads((await shared.run("send", session, "And that", "--json")).out)
        listed = await shared.run("inputs", session)
        assert [line.split()[1:] for line in listed.out.splitlines()] == [
            ["queued", "queue", "Then", "this"],
            ["queued", "queue", "And", "that"],
        ]
        waits = listed.out.split()[0]
        changed = await shared.run("inputs", session, "--change", waits, "Then that")
        assert changed.out.split() == [waits, "queued", "queue", "Then", "that"]
        await run.says("edited    Then that")
        cancelled = await shared.run("inputs", session, "--cancel", more["inputId"])
        assert cancelled.out.split()[1] == "cancelled"
        assert (await shared.run("inputs", session, "--cancel", "x")).code == 2
        stopped = await shared.run("send", session, "No, this", "--interrupt")
        assert "the turn is being stopped" in stopped.out
        ended = await run.ended()
    assert ended.code == 1
    assert "interrupted" in ended.out
    shared.open_gate()
    follow = asyncio.create_task(shared.run("resume", session))
    while not follow.done():
        # Two more turns, each with a gate of its own.
        shared.open_gate()
        await asyncio.wait([follow], timeout=0.2)
    resumed = (await follow).out
    assert resumed.index("› No, this") < resumed.index("› Then that")
    assert "› Then this" not in resumed
    assert "› And that" not in resumed
    everything = await shared.run("inputs", session, "--all", "--json")
    assert [json.loads(line)["status"].removeprefix("INPUT_STATUS_") for line in everything.out.splitlines()] == [
        "DELIVERED",
        "CANCELLED",
        "DELIVERED",
    ]
    assert (await shared.run("inputs", session)).out == "nothing is queued\n"


async def test_send_steers(shared, find_session) -> None:
    async with shared.started("run", *shared.add_recording("listening", LISTENING), "Listen") as run:
        await run.says("listening")
        sent = await shared.run("send", find_session(run.out), "with tabs", "--steer")
        assert "next safe step" in sent.out
        ended = await run.ended()
    assert ended.code == 0
    assert ended.out.index("› with tabs") < ended.out.index("heard with tabs")


@pytest.mark.parametrize(
    "arguments", [("send", "{none}", "x"), ("inputs", "{none}"), ("answer", "{none}", "x"), ("inputs", "{none}", "--cancel", "x")]
)
async def test_a_session_that_is_not_there_is_said_so(shared, arguments) -> None:
    ended = await shared.run(*(argument.replace("{none}", "0190aaaa-0000-7000-8000-000000000000") for argument in arguments))
    assert ended.code == 2
    assert "reason SESSION_NOT_FOUND" in ended.err


def test_an_option_says_what_it_covers() -> None:
    asked = event_pb2.Event()
    asked.approval_requested.options.add(id="allow-like", kind=event_pb2.APPROVAL_OPTION_KIND_ALLOW_SESSION, label="yes, and make again")
    asked.approval_requested.options.add(id="all", kind=event_pb2.APPROVAL_OPTION_KIND_ALLOW_SESSION)
    ((_, choices),) = prompts(asked)
    assert choices == ["allow-like: yes, and make again", "all: yes, and do not ask again in this turn"]


def question(*options: str, multi: bool = False, free_text: bool = False) -> event_pb2.Event:
    asked = event_pb2.Event()
    one = asked.question_requested.questions.add(id="q", multi=multi, free_text=free_text)
    for option in options:
        one.options.add(id=option, label=option)
    return asked


@pytest.mark.parametrize(
    ("event", "typed", "ids", "text"),
    [
        (question("red", "blue"), "2", ["blue"], ""),
        (question("red", "blue"), " red ", ["red"], ""),
        (question("red", "blue", multi=True), "1, blue,1", ["red", "blue"], ""),
        (question("a, b", "c", multi=True), "a, b", ["a, b"], ""),
        (question("1", "0"), "0", ["0"], ""),
        (question("red", "blue"), "B", ["blue"], ""),
        (question("red", free_text=True), "re", [], "re"),
        (question("red", free_text=True), "something else", [], "something else"),
        (question(free_text=True), "1", [], "1"),
    ],
)
def test_what_is_typed_is_an_id_a_number_or_text(event, typed, ids, text) -> None:
    (answer,) = parse(event, [typed]).answers
    assert (list(answer.option_ids), answer.text) == (ids, text)


@pytest.mark.parametrize(
    ("typed", "option"),
    [("y", "once"), ("Yes", "once"), ("n", "stop"), ("no", "stop"), ("al", "always"), ("1", "always"), ("st", "stop")],
)
def test_leave_is_given_and_refused_in_everybody_s_words(typed, option) -> None:
    asked = event_pb2.Event()
    asked.approval_requested.options.add(id="always", kind=event_pb2.APPROVAL_OPTION_KIND_ALLOW_SESSION)
    asked.approval_requested.options.add(id="once", kind=event_pb2.APPROVAL_OPTION_KIND_ALLOW_ONCE)
    asked.approval_requested.options.add(id="stop", kind=event_pb2.APPROVAL_OPTION_KIND_REJECT_ONCE)
    assert parse(asked, [typed]).option_id == option


@pytest.mark.parametrize(
    ("event", "typed"),
    [
        (question("red"), "2"),
        (question("red"), "0"),
        (question("red", "blue"), "1,2"),
        (question("allow", "allow_all"), "a"),
        (question(free_text=True), " "),
        (question("red"), "１"),
    ],
)
def test_what_answers_nothing_is_refused(event, typed) -> None:
    with pytest.raises(NoAnswer):
        parse(event, [typed])
