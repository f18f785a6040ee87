"""`treadle run`, `resume`, `sessions`, `interrupt` and `demo` against a running server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.git_server import git
from support.legacy_archives import SESSION, Old


async def test_run_shows_the_work_and_pushes_it(shared, find_branch) -> None:
    ended = await shared.run("run", "--repo", shared.sample_url, "Add a note")
    assert ended.code == 0, ended
    assert "$ sh treadle-notes/check.sh" in ended.out
    assert "ok 1 - turn-1.md" in ended.out
    assert "completed in" in ended.out
    assert "\x1b" not in ended.out
    assert "treadle-notes/turn-1.md" in shared.pushed(find_branch(ended.out))


async def test_run_goes_on_in_a_session(shared, find_session, find_branch) -> None:
    first = await shared.run("run", "--repo", shared.sample_url, "--branch", "mine", "One")
    second = await shared.run("run", "--session", find_session(first.out), "Two")
    assert second.code == 0, second
    assert "turn 2" in second.out
    assert {"treadle-notes/turn-1.md", "treadle-notes/turn-2.md"} <= set(shared.pushed("mine"))


async def test_the_same_request_id_starts_nothing(shared, find_session) -> None:
    arguments = ("run", "--repo", shared.sample_url, "--request-id", "the-same", "Once")
    first, second = await shared.run(*arguments), await shared.run(*arguments)
    assert second.code == 0
    assert find_session(first.out) == find_session(second.out)
    assert "turn 1" in second.out


async def test_the_history_of_a_session_and_the_ways_back_into_it(shared, find_session, find_branch) -> None:
    first = await shared.run("run", "--repo", shared.sample_url, "One")
    session = find_session(first.out)
    await shared.run("run", "--session", session, "Two")
    listed = await shared.run("history", session, "--json")
    assert [json.loads(line)["number"] for line in listed.out.splitlines()] == [2, 1]
    restored = await shared.run("restore", session, "--at", "1")
    assert (restored.code, "as it was then, by commit" in restored.out) == (0, True), restored
    again = await shared.run("restore", session, "--at", "1")
    assert (again.code, "as it was then already; nothing was committed" in again.out) == (0, True), again
    listed = await shared.run("history", session)
    assert listed.err == ""
    assert ["not pushed" in line for line in listed.out.splitlines() if line.lstrip()[0].isdigit()] == [True, False, False]
    cut = await shared.run("history", session, "--limit", "2")
    assert (cut.out, cut.err.count("this is not all, only the newest 2: --limit N shows more")) == (listed.out[: len(cut.out)], 1)
    assert "only the newest 1:" in (await shared.run("sessions", "--limit", "1")).err
    assert [line.split()[3] for line in listed.out.splitlines() if line.lstrip()[0].isdigit()] == ["restore", "turn", "turn"]
    forked = await shared.run("fork", session, "--at", "2", "--branch", "from-two")
    assert forked.code == 0, forked
    fork = forked.out.split()[0]
    told = (await shared.run("show", fork)).out
    assert f"fork      of {session} at 2\n" in told
    shown = json.loads((await shared.run("show", fork, "--json")).out)
    assert (shown["sessionId"], shown["forkedFrom"]["parentSessionId"], shown["forkedFrom"]["parentSnapshot"]) == (fork, session, 2)
    parent = json.loads((await shared.run("show", session, "--json")).out)
    assert "forkedFrom" not in parent
    stored = parent["storedBytes"]
    assert f"stored    {int(stored):,} bytes\n" in (await shared.run("show", session)).out
    assert f" of {session} at 2 " in (await shared.run("history", fork)).out
    assert f"fork      of {session} at 2; its agent remembers nothing of it\n" in (await shared.run("resume", fork, "--no-follow")).out
    third = await shared.run("run", "--session", forked.out.split()[0], "Three")
    assert third.code == 0, third
    assert {"treadle-notes/turn-1.md", "treadle-notes/turn-2.md"} <= set(shared.pushed("from-two"))
    refused = await shared.run("restore", session, "--at", "99")
    assert (refused.code, "snapshot '99' does not exist" in refused.err) == (2, True), refused


async def test_run_says_how_many_are_before_it(home) -> None:
    async with home.up(TREADLE_MAX_TURNS="1"), home.started("run", *home.add_gated_recording(), "First") as first:
        await first.says("first.txt")
        async with home.started("run", "--repo", home.sample_url, "Second") as second:
            await second.says("you are your tenant's next")
            async with home.started("run", "--repo", home.sample_url, "Third") as third:
                await third.says("1 before you")
                # What was asked is shown at once.
                assert "› Third" in third.out
                home.open_gate()
                for each in (first, second, third):
                    ended = await each.ended()
                    assert (ended.code, "completed in" in ended.out) == (0, True), ended


async def test_json_is_one_event_per_line_without_a_gap(shared) -> None:
    ended = await shared.run("run", "--json", "--repo", shared.sample_url, "Add a note")
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["turnCompleted"]["status"] == "TURN_STATUS_COMPLETED"
    session = events[0]["sessionId"]

    after = await shared.run("resume", session, "--after", "3", "--no-follow", "--json")
    assert [json.loads(line) for line in after.out.splitlines()] == events[3:]
    assert after.code == 0

    listed = await shared.run("sessions", "--json")
    assert session in [json.loads(line)["sessionId"] for line in listed.out.splitlines()]


async def test_ctrl_c_detaches_and_resume_comes_back(shared, find_branch) -> None:
    async with shared.started("run", *shared.add_gated_recording(), "Take your time") as run:
        await run.says("first.txt")
        left = await run.stop(signal.SIGINT)
    assert left.code == 130
    assert "Traceback" not in left.err
    assert "Come back with" in left.err
    words = left.err.split("treadle resume ")[1].split()

    async with shared.started("resume", *words) as resume:
        shared.open_gate()
        back = await resume.ended()
    assert back.code == 0, back
    assert "first.txt  +1" not in back.out.split("completed")[0]
    assert "second.txt  +1" in back.out
    assert set(shared.pushed(find_branch(back.out))) == {"gated.jsonl", "first.txt", "second.txt"}


async def test_interrupt_keeps_the_work(shared, find_session, find_branch) -> None:
    async with shared.started("run", *shared.add_gated_recording(), "Be stopped") as run:
        await run.says("first.txt")
        stopped = await shared.run("interrupt", find_session(run.out))
        ended = await run.ended()
    assert stopped.code == 0, stopped
    assert "what it has changed, if anything" in stopped.out
    assert ended.code == 1
    assert "interrupted" in ended.out
    assert set(shared.pushed(find_branch(ended.out))) == {"gated.jsonl", "first.txt"}
    assert "no turn is active" in (await shared.run("interrupt", find_session(run.out))).out


async def test_what_waits_after_an_interrupt_is_told(shared, find_session) -> None:
    async with shared.started("run", *shared.add_gated_recording(), "Be stopped") as run:
        await run.says("first.txt")
        session = find_session(run.out)
        sent = await shared.run("send", session, "Then this")
        assert "when those before it have completed" in sent.out
        assert "after one that failed or was stopped it waits for the next `send`" in sent.out
        follow = re.search(rf"treadle resume .*{session} --after (\d+)", sent.out)
        assert follow
        stopped = await shared.run("interrupt", session)
        await run.ended()
    assert "1 input waits until the next `send`, or until a turn completes" in stopped.out
    assert re.search(f"treadle inputs .*{session}", stopped.out)
    listed = (await shared.run("sessions")).out
    assert "1 input waits" in listed.split(session)[1].splitlines()[0]
    # From where the hint said: what had been said is there, what was seen before is not.
    seen = await shared.run("resume", session, "--after", follow[1], "--no-follow")
    assert "queued    Then this" in seen.out
    assert "first.txt" not in seen.out.split("interrupted")[0]
    waiting = (await shared.run("inputs", session)).out.split()[0]
    assert (await shared.run("inputs", session, "--cancel", waiting)).code == 0
    assert "input waits" not in (await shared.run("sessions")).out
    assert "input waits" not in (await shared.run("interrupt", session)).out


async def test_a_request_without_quotes_is_told_so(shared) -> None:
    ended = await shared.run("run", "--repo", shared.sample_url, "hello", "unquoted", "words")
    assert ended.code == 2
    assert "put the request in quotes" in ended.err
    assert "usage: treadle run" in ended.err


async def test_a_failed_turn_is_exit_code_1(shared, find_session) -> None:
    ended = await shared.run("run", "--repo", shared.sample_url, "--model", "no-such.jsonl", "Fail")
    assert ended.code == 1
    assert "there is no recording 'no-such.jsonl'; bundled are approvals, first-session" in ended.out
    assert "Errno" not in ended.out
    assert "failed there is no recording 'no-such.jsonl'" in " ".join((await shared.run("show", find_session(ended.out))).out.split())


async def test_a_model_for_an_agent_that_calls_none_is_refused_before_anything_is_made(shared) -> None:
    before = (await shared.run("sessions", "--json")).out
    ended = await shared.run("run", "--repo", shared.sample_url, "--provider", "replay", "--model", "claude-sonnet-5", "Go")
    assert ended.code == 2
    assert "is no recording, and replay calls no model: it plays approvals, first-session, or a file" in ended.err
    assert "reason MODEL_NOT_ALLOWED" in ended.err
    assert (await shared.run("sessions", "--json")).out == before


@pytest.mark.parametrize(("leave", "told"), [(("allow",), "$ wc -w"), (("--decline",), "To the command you said: declined.")])
async def test_ask_asks_without_a_key(shared, find_session, find_branch, leave, told) -> None:
    async with shared.started("run", "--ask", "--repo", shared.sample_url, "Ask me") as run:
        await run.says("Shall the note be a short or a long one?")
        session = find_session(run.out)
        assert (await shared.run("answer", session, "long")).code == 0
        await run.says("Count the words of the note")
        assert (await shared.run("answer", session, *leave)).code == 0
        ended = await run.ended()
    assert ended.code == 0, ended
    assert told in ended.out
    assert ("$ wc -w" in ended.out) == (leave == ("allow",))
    assert "+Asked for a short or a long note, the user said: long" in ended.out
    assert "treadle-notes/answer-1.md" in shared.pushed(find_branch(ended.out))


async def test_ask_asks_on_the_terminal_that_watches(shared) -> None:
    arguments = ["run", "--ask", "--repo", shared.sample_url, "Ask me"]
    shown = await asyncio.to_thread(_on_a_terminal, arguments, shared.data_dir, ["short", "1"])
    assert shown.count("answer> ") == 2
    assert "$ wc -w treadle-notes/answer-1.md" in shown
    assert "To the command you said: allow." in " ".join(shown.split())
    assert "completed in" in shown


async def test_demo_plays_again(shared) -> None:
    ended = await shared.run("demo")
    assert ended.code == 0, ended
    assert "No model is called" in ended.out
    assert "(pushed)" in ended.out


async def test_what_agents_say_cannot_command_the_terminal(shared) -> None:
    steps = r"""{"run": "printf 'a\\033[31mb\\033]0;title\\007c\\rd\\n'"}
{"say": "e\u001b[2Jf\u202eg"}
"""
    ended = await shared.run("run", *shared.add_recording("escapes", steps), "Escape")
    assert ended.code == 0, ended
    assert "    abcd\n" in ended.out
    assert "\nef\ufffdg\n" in ended.out
    assert not set(ended.out) & {"\x1b", "\x07", "\r", "\u202e"}


async def test_on_a_terminal_text_grows_and_is_shown_once(shared) -> None:
    said = "I will look at the repository first, then write down what you asked for together with a small check, and run it."
    shown = await asyncio.to_thread(_on_a_terminal, ["run", "--repo", shared.sample_url, "Add a note"], shared.data_dir)
    assert " ".join(shown.split()).count(said) == 1
    prose = [line for line in shown.splitlines() if not line.startswith("  ")]
    assert max(map(len, prose)) <= 80, "lines of words fit on the terminal"
    assert "(pushed)" in shown


async def test_on_a_terminal_words_go_on_in_the_next_line(shared) -> None:
    branch = "a-branch-whose-name-" + "is-long-" * 10 + "indeed"
    made = await shared.run("run", "--repo", shared.sample_url, "--branch", branch, "Add a note")
    assert made.code == 0, made
    demo = await asyncio.to_thread(_on_a_terminal, ["demo"], shared.data_dir)
    said = " ".join(demo.split())
    assert "so do the branch, the commit and the push. No model is called." in said
    assert "The check proves that the note is there and says what was asked." in said, "what it thinks"
    listed = await asyncio.to_thread(_on_a_terminal, ["sessions"], shared.data_dir)
    assert f"\n  {branch}\n" in listed, "a name that is wider than a line can be copied"


@pytest.mark.parametrize(
    "arguments",
    [
        ["sessions", "--server", "[0000:0000:0000:0000:0000:0000:0000:0001]:1"],
        ["run", "--repo", "https://x/y", "not", "in", "quotes,", "and", "so", "many", "words", "that", "they", "do", "not", "fit"],
    ],
)
async def test_on_a_terminal_what_goes_wrong_is_told_in_whole_words(shared, arguments) -> None:
    piped = await shared.run(*arguments)
    shown = await asyncio.to_thread(_on_a_terminal, arguments, shared.data_dir, errors=True)
    command = f"`{piped.err.split('`')[1]}`" if "`" in piped.err else ""
    fitting = [line for line in shown.splitlines() if not command or command not in line]
    assert max(map(len, fitting)) <= 80
    assert shown.split() == piped.err.split()
    assert command in shown, "a command is wider than a line, and stays whole"
    assert max(map(len, piped.err.splitlines())) > 80, "without a terminal nothing is broken"


async def test_on_a_terminal_a_message_goes_on_where_it_was_left(shared) -> None:
    """From every place inside of it, as the hint after Ctrl-C names them."""
    said = "I will look at the repository first, then write down what you asked for together with a small check, and run it."
    ended = await shared.run("run", "--json", "--repo", shared.sample_url, "Add a note")
    events = [json.loads(line) for line in ended.out.splitlines()]
    deltas = [event for event in events if "contentDelta" in event and event["contentDelta"]["channel"] == "CHANNEL_TEXT"]
    inside = [event for event in deltas if event["itemId"] == deltas[0]["itemId"]]
    for left in (inside[0], inside[len(inside) // 2], inside[-1]):
        rest = said[int(left["contentDelta"].get("offset", 0)) + len(left["contentDelta"]["data"]) :]
        shown = await asyncio.to_thread(_on_a_terminal, ["resume", left["sessionId"], "--after", left["seq"]], shared.data_dir)
        shown = " ".join(shown.split())
        assert said not in shown
        assert shown.count(rest.strip()) == 1 or not rest
        assert "as recorded; none were used now" in shown


def _on_a_terminal(arguments: list[str], data_dir: Path, answers: Sequence[str] = (), *, errors: bool = False) -> str:
    """Each answer is typed when the command asks for one. `errors`: the terminal shows these."""
    controller, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "NO_COLOR": "1", "TREADLE_DATA_DIR": str(data_dir)}
    stdin = terminal if answers else subprocess.DEVNULL
    command, aside = [sys.executable, "-m", "server.cli", *arguments], terminal if errors else None
    with subprocess.Popen(command, stdout=terminal, stderr=aside, stdin=stdin, env=environment):
        os.close(terminal)
        shown, typed = b"", 0
        with os.fdopen(controller, "r+b", buffering=0) as screen, contextlib.suppress(OSError):
            while chunk := screen.read(65536):
                shown += chunk
                if typed < min(len(answers), shown.count(b"answer> ")):
                    screen.write(answers[typed].encode() + b"\n")
                    typed += 1
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("arguments", "reason", "field"),
    [
        (("run", "--repo", "{sample}", " "), "INVALID_FIELD", "prompt"),
        (("run", "--repo", "https://example.org/x/y", "Not allowed"), "REPOSITORY_NOT_ALLOWED", "repository_url"),
        (("run", "--repo", "{sample}x", "Not there"), "REPOSITORY_UNREACHABLE", "repository_url"),
        (("run", "--repo", "{sample}", "--base", "nowhere", "No such branch"), "BRANCH_UNKNOWN", "base_branch"),
        (("run", "--repo", "{sample}", "--branch", "a..b", "Bad name"), "INVALID_FIELD", "branch"),
        (("run", "--repo", "{sample}", "--provider", "nobody", "No such agent"), "PROVIDER_UNKNOWN", "provider"),
        (("run", "--session", "0190aaaa-0000-7000-8000-000000000000", "Not mine"), "SESSION_NOT_FOUND", ""),
        (("resume", "0190aaaa-0000-7000-8000-000000000000"), "SESSION_NOT_FOUND", ""),
        (("interrupt", "0190aaaa-0000-7000-8000-000000000000"), "SESSION_NOT_FOUND", ""),
    ],
)
async def test_bad_input_is_said_in_one_breath(shared, arguments, reason, field) -> None:
    ended = await shared.run(*(argument.replace("{sample}", shared.sample_url) for argument in arguments))
    assert ended.code == 2, ended
    assert ended.out == ""
    assert f"reason {reason}" in ended.err
    assert f"field {field}" in ended.err or not field
    # What may be private gets one line more: the command that stores a token.
    assert len(ended.err.splitlines()) == 2 + (reason == "REPOSITORY_UNREACHABLE")


async def test_resume_beyond_the_end_is_refused(shared, find_session) -> None:
    session = find_session((await shared.run("run", "--repo", shared.sample_url, "Add a note")).out)
    for after in ("100000", "99"):
        ended = await shared.run("resume", session, "--after", after)
        assert ended.code == 2
        assert f"after_seq {after} is beyond the last event" in ended.err
        assert "SEQUENCE_AHEAD" in ended.err


@pytest.mark.parametrize("after", ["-1", "99999999999999999999999", "many"])
async def test_a_number_that_no_event_has_is_refused(shared, after) -> None:
    ended = await shared.run("resume", "0190aaaa-0000-7000-8000-000000000000", "--after", after)
    assert ended.code == 2
    assert "--after" in ended.err
    assert "Traceback" not in ended.err


async def test_a_wrong_key_is_refused(shared) -> None:
    ended = await shared.run("sessions", TREADLE_API_KEY="trd_wrong")
    assert ended.code == 2
    assert "API_KEY_INVALID" in ended.err


async def test_no_server_is_exit_code_3(shared, unused) -> None:
    nowhere = await shared.run("sessions", TREADLE_ADDRESS="127.0.0.1:1")
    assert nowhere.code == 3
    assert "127.0.0.1:1 cannot be reached" in nowhere.err
    unknown = await unused.run("run", "--repo", "https://github.com/a/b", "Hello")
    assert unknown.code == 3
    assert "treadle up" in unknown.err


async def test_what_is_missing_is_named_as_the_command_line_has_it(shared) -> None:
    bare = await shared.run("run", "hello")
    assert bare.code == 2
    assert "--repo URL" in bare.err
    assert (await shared.run("sessions", "--limit", "0")).code == 2
    ssh = await shared.run("run", "--repo", "git@github.com:acme/app.git", "hello")
    assert ssh.code == 2
    assert "only https:// URLs are fetched; try https://github.com/acme/app.git" in ssh.err


async def test_commands_on_the_database_find_that_of_a_running_up(shared, unused, tmp_path: Path) -> None:
    made = await shared.run("key", "ada")
    assert made.out.startswith("trd_")
    assert (await shared.run("sessions", TREADLE_API_KEY=made.out.strip())).code == 0
    # By the option alone, too.
    listed = await unused.run("key", "--list", "ada", "--data-dir", str(shared.data_dir))
    assert listed.out.startswith(made.out[:12])
    brought = await unused.run("legacy", "import", "--from", str(tmp_path), "--dry-run", "--data-dir", str(shared.data_dir))
    assert (brought.code, "0 archives; a dry run" in brought.err) == (0, True), brought
    (tmp_path / SESSION).mkdir()
    Old("T2", url=shared.sample_url).archive(tmp_path).rename(tmp_path / SESSION / "session.tar.gz")
    options = ("--from", str(tmp_path), "--owner", "local", "--dry-run", "--data-dir", str(shared.data_dir))
    served = await unused.run("legacy", "import", *options)
    assert ("IMPORTED" in served.out, "NOT_ALLOWED" in served.out) == (True, False), served
    nowhere = await unused.run("key", "ada")
    assert (nowhere.code, "--data-dir" in nowhere.err, "TREADLE_DATABASE_SYSTEM_URL" in nowhere.err) == (2, True, True)


async def test_the_readme_s_program_runs_as_it_stands(shared) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    program = readme.split("```python\n")[1].split("```")[0]
    there = "http://127.0.0.1:7435/sample.git"
    assert there in program
    variables = {
        "TREADLE_ADDRESS": (shared.data_dir / "address").read_text().strip(),
        "TREADLE_API_KEY_FILE": str(shared.data_dir / "api-key"),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program.replace(there, shared.sample_url), env=inherited | variables, stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert "> sh treadle-notes/check.sh" in out.decode()
    commit = out.decode().splitlines()[-1].removeprefix("pushed ")
    assert commit in git(shared.sample, "for-each-ref", "--format=%(objectname)").split()


async def test_no_color_means_no_styles_at_all(shared) -> None:
    """Also no bold and no dim, on a terminal."""
    master, slave = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server.cli", "sessions", "--data-dir", str(shared.data_dir),
            env=os.environ | {"NO_COLOR": "1", "TERM": "xterm-256color"}, stdout=slave, stderr=slave,
        )  # fmt: skip
        assert await asyncio.wait_for(process.wait(), 60) == 0
        os.set_blocking(master, False)
        assert b"\x1b[" not in os.read(master, 65536)
    finally:
        os.close(master)
        os.close(slave)


async def test_what_could_not_be_pushed_is_listed_and_pushed(shared) -> None:
    hook = shared.sample / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nread old new ref\n[ $(git rev-list --count main..$new) = 0 ] || { echo 'GH006: ask Ada' >&2; exit 1; }\n")
    hook.chmod(0o755)
    try:
        ran = await shared.run("run", "--repo", shared.sample_url, "Add a note")
        session = re.search(r"session (\S+)", ran.out)[1]
        assert ran.code == 4
        assert (await shared.run("resume", session, "--no-follow", "--json")).code == 4
        assert "publish it on another branch:" in " ".join(ran.out.split())
        listed = " ".join((await shared.run("sessions", "--limit", "1")).out.split())
        assert "is not pushed: [remote rejected] (pre-receive hook declined); GH006: ask Ada" in listed
        refused = await shared.run("push", session)
        assert (refused.code, "reason PUSH_REFUSED" in refused.err) == (4, True)
        assert f"{session} --branch NAME" in " ".join(refused.err.split())
    finally:
        hook.unlink()
    pushed = await shared.run("push", session, "--branch", "rescued")
    assert (pushed.code, pushed.out.split()[0]) == (0, "rescued")
    assert "not pushed" not in (await shared.run("sessions", "--limit", "1")).out
    resumed = await shared.run("resume", session)
    assert (resumed.code, "pushed    rescued at" in resumed.out) == (0, True)


async def test_a_session_whose_branch_was_refused_has_nothing_to_push_and_gets_another_branch(shared, find_session) -> None:
    hook = shared.sample / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'ask Ada' >&2\nexit 1\n")
    hook.chmod(0o755)
    try:
        ran = await shared.run("run", "--repo", shared.sample_url, "Add a note")
        session = find_session(ran.out)
        assert ran.code == 1
        assert "its branch could not be made: " in (await shared.run("show", session)).out
        nothing = await shared.run("push", session)
        assert (nothing.code, "no commit that could be pushed" in nothing.err) == (2, True)
        assert await shared.run("push", session, "--json") == nothing
        refused = await shared.run("push", session, "--branch", "other")
        listed = await shared.run("show", session)
    finally:
        hook.unlink()
    assert refused.code == 4
    for told in (refused.err, listed.out):
        assert "does not let this branch be made" in told
        assert f"push --data-dir {shared.data_dir} {session} --branch NAME" in told
        assert "commits hold" not in told
    assert "its branch could not be made: " in listed.out


async def test_a_turn_that_cannot_read_its_repository_says_how_a_token_is_stored(shared, find_session) -> None:
    there, url = shared.sample.with_name("gone.git"), shared.sample_url.replace("sample.git", "gone.git")
    shutil.copytree(shared.sample, there)
    ran = await shared.run("run", "--repo", url, "Add a note")
    assert ran.code == 0, ran
    shutil.rmtree(there)
    again = await shared.run("run", "--session", find_session(ran.out), "Add another")
    assert again.code == 1
    assert f"credential add --data-dir {shared.data_dir} {url}" in again.out
