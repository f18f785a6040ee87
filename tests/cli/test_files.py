"""`treadle files` and what tells of its work, against a running server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support.terminal import on_a_terminal


@pytest.fixture(scope="module")
async def session(shared, find_session) -> str:
    """One that has had a turn."""
    ended = await shared.run("run", "--repo", shared.sample_url, "Add a note")
    assert ended.code == 0, ended
    return find_session(ended.out)


class Files:
    """`treadle files ACTION SESSION ...`."""

    def __init__(self, home: Any, session: str) -> None:
        self._home, self._session = home, session

    async def __call__(self, action: str, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server.cli", "files", action, self._session, *arguments,
            env=self._home.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
def files(shared, session: str) -> Files:
    return Files(shared, session)


async def test_a_file_is_put_moved_and_found_and_says_how_it_gets_to_the_remote(files: Files, shared, session: str, find_branch) -> None:
    code, out, err = await files("put", "new.txt", "--etag", "", stdin=b"new\n")
    assert (code, out.split()[1:]) == (0, ["new.txt"])
    assert "it is pushed with the next turn, or now by\n" in err
    assert err.rstrip().endswith(f"push --data-dir {shared.data_dir} {session}")
    assert await files("put", "new.txt", stdin=b"new\n") == (0, out, "treadle: it was so already; nothing is committed\n")
    assert (await files("mv", "new.txt", "sub/new.txt"))[0] == 0
    assert await files("cat", "sub/new.txt") == (0, "new\n", "")
    assert await files("grep", "--at", "head", "new", "sub") == (0, "sub/new.txt:1:new\n", "")
    assert "rename to sub/new.txt" in (await files("diff"))[1]
    assert await files("diff", "--at", "1") == await files("diff", "1")
    assert "rename" not in (await files("diff", "--path", "sub"))[1]
    assert "sub/new.txt" in (await files("diff", "--path", "sub"))[1]
    assert (await files("diff", "--path", "nowhere"))[0] == 2
    assert (await files("diff", "--stat"))[1].splitlines() == ["R          +0 -0  new.txt → sub/new.txt", "1 file changed, +0 -0"]
    assert json.loads((await files("diff", "--json"))[1])["oldPath"] == "new.txt"
    assert await files("ls", "./sub/") == await files("ls", "sub")
    code, _, err = await files("rm", "sub")
    assert (code, "-r removes it with all that it holds\n  reason NOT_A_FILE" in err) == (2, True)
    listed = (await shared.run("history", session)).out.splitlines()
    name = json.loads((await shared.run("history", session, "--json")).out.splitlines()[0])["actorName"]
    assert [word in listed[0] for word in ("edit", f"by {name}", "current", "not pushed")] == [True] * 4
    assert "current" not in listed[2]
    shown = await shared.run("show", session)
    assert "its next turn pushes it, or now:" in shown.out
    pushed = await shared.run("push", session)
    assert pushed.code == 0, pushed
    assert "sub/new.txt" in shared.pushed(find_branch(f"branch {pushed.out}"))


async def test_what_is_larger_than_a_request_is_put_from_a_pipe_and_from_a_file(files: Files, shared, session: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"0123456789abcdef" * (20 * 2**16))
    code, out, err = await files("put", "large", stdin=large.read_bytes())
    assert (code, out.split()[1:]) == (0, ["large"]), err
    with large.open("rb") as file:
        command = [sys.executable, "-m", "server.cli", "files", "put", session, "large"]
        process = await asyncio.create_subprocess_exec(*command, env=shared.environment, stdin=file, stderr=subprocess.PIPE)
        assert (await process.communicate())[1] == b"treadle: it was so already; nothing is committed\n"
    assert (await files("get", "large", "-o", str(tmp_path / "back")))[0] == 0
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    code, _, err = await files("put", "large", "--etag", "", stdin=large.read_bytes())
    assert code != 0
    assert "'large' is there already, with the etag" in err
    assert (await files("rm", "large"))[0] == 0


async def test_an_etag_is_seen_and_says_which_file_is_meant(files: Files) -> None:
    await files("put", "etag.txt", stdin=b"one\n")
    code, out, _ = await files("ls", "etag.txt", "-l")
    etag, size, path = out.split()
    assert (code, size, path) == (0, "4", "etag.txt")
    assert json.loads((await files("ls", "etag.txt", "--json"))[1])["etag"] == etag
    assert f"{etag}             4  etag.txt\n" in (await files("ls", "-l"))[1]
    code, _, err = await files("put", "etag.txt", "--etag", "", stdin=b"two\n")
    assert (code, err.splitlines()[0]) == (2, f"treadle: 'etag.txt' is there already, with the etag {etag}")
    code, _, err = await files("rm", "etag.txt", "--etag", "other")
    assert (code, err.splitlines()[-1]) == (2, f"  its etag is {etag}")
    assert (await files("put", "etag.txt", "--etag", etag, stdin=b"two\n"))[0] == 0


async def test_a_search_says_whether_it_found_something_and_whether_that_is_all(files: Files) -> None:
    assert await files("grep", "nobody wrote this") == (1, "", "")
    assert await files("find", "no-such-name") == (1, "", "")
    code, out, err = await files("find", "--limit", "1", "e")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err == "treadle: this is not all, only the first 1: --limit N shows up to 1000\n"
    assert await files("grep", "--limit", "1", "e") == (0, (await files("grep", "e"))[1].splitlines(keepends=True)[0], err)
    assert (await files("find", "--limit", "1001", "e"))[0] == 2


async def test_a_file_or_a_directory_is_downloaded(files: Files, tmp_path: Path) -> None:
    assert await files("get", "README.md") == await files("cat", "README.md")
    there = tmp_path / "all.tar.gz"
    (tmp_path / "all.tar.gz.part").write_text("the user's own")
    assert await files("get", "-o", str(there)) == (0, "", "")
    with tarfile.open(there) as tar:
        assert "README.md" in tar.getnames()
    code, _, err = await files("get", "no-such-file", "-o", str(there))
    assert (code, "FILE_NOT_FOUND" in err) == (2, True)
    nowhere = tmp_path / "no" / "where"
    code, _, err = await files("get", "-o", str(nowhere))
    assert (code, err.rstrip()) == (2, f"treadle: {nowhere} cannot be written: No such file or directory")
    assert (await files("get", "README.md", "-o", "/dev/null"))[0] == 0
    assert Path("/dev/null").is_char_device()
    assert {path.name for path in tmp_path.iterdir()} == {"all.tar.gz", "all.tar.gz.part"}
    assert (tmp_path / "all.tar.gz.part").read_text() == "the user's own"
    assert await files("get", "README.md", "-o", str(tmp_path)) == (0, "", f"treadle: written to {tmp_path / 'README.md'}\n")
    assert (await files("cat", "README.md"))[1] == (tmp_path / "README.md").read_text()


async def test_a_file_for_which_there_is_no_room_is_not_there(shared, session: str, tmp_path: Path) -> None:
    """What is small is written when it is closed."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m", "server.cli", "files", "get", session, "README.md",
        "-o", str(tmp_path / "README.md"), env=shared.environment, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (2, f"treadle: {tmp_path / 'README.md'} cannot be written: File too large\n")
    assert list(tmp_path.iterdir()) == []


async def test_an_archive_is_not_written_to_a_terminal(shared, session: str) -> None:
    async with on_a_terminal(shared, "files", "get", session, errors=True, code=2) as terminal:
        await terminal.ended()
    assert "`-o FILE`" in terminal.shown
    assert len(terminal.shown.splitlines()) <= 2


async def test_content_is_asked_for_on_a_terminal_and_ctrl_c_ends_it(shared, session: str) -> None:
    async with on_a_terminal(shared, "files", "put", session, "typed.txt", errors=True, code=130) as terminal:
        await terminal.says("Ctrl-D")
        terminal.process.send_signal(signal.SIGINT)
        await terminal.ended()
    assert "Traceback" not in terminal.shown
    assert "Fatal" not in terminal.shown
    async with on_a_terminal(shared, "files", "put", session, "typed.txt", errors=True) as terminal:
        await terminal.says("Ctrl-D")
        await terminal.types("typed\n")
        terminal.press("\x04")
        await terminal.says("it is pushed with the next turn")


async def test_while_a_turn_runs_commands_that_look_at_commits_say_so(shared, find_session) -> None:
    async with shared.started("run", *shared.add_gated_recording(), "Take your time") as run:
        await run.says("first.txt")
        files = Files(shared, find_session(run.out))
        code, out, err = await files("put", "live.txt", stdin=b"live\n")
        assert (code, out, err) == (0, "in the running turn  live.txt\n", "treadle: the agent sees it at once; the turn commits it\n")
        assert (await files("ls", "live.txt"))[0] == 0
        code, _, err = await files("grep", "live")
        assert (code, "a turn runs; this looks at" in err) == (1, True)
        assert (await files("grep", "--at", "head", "live"))[2] == ""
        shared.open_gate()
        assert (await run.ended()).code == 0


async def test_sessions_are_named_in_short_shown_renamed_and_deleted(shared, session: str, find_session) -> None:
    mine = find_session((await shared.run("run", "--repo", shared.sample_url, "Short")).out)
    assert json.loads((await shared.run("show", mine[-6:], "--json")).out)["sessionId"] == mine
    renamed = await shared.run("rename", "last", "Another name")
    assert renamed.out == f"{mine}  Another name\n"
    forked = await shared.run("fork", mine, "--at", "1")
    assert "  Fork of Another name\n" in forked.out
    fork = forked.out.split()[0]
    several = await shared.run("show", mine[:4])
    assert (several.code, mine in several.err, fork in several.err) == (2, True, True)
    assert "begins or ends with" in (await shared.run("show", "ffffffff")).err
    unasked = await shared.run("delete", fork)
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    async with on_a_terminal(shared, "delete", fork, errors=True, code=2) as terminal:
        await terminal.says("[y/N] ")
        await terminal.types("n\n")
    async with on_a_terminal(shared, "delete", fork) as terminal:
        await terminal.says("Fork of Another name")
        await terminal.says("[y/N] ")
        await terminal.types("y\n")
        await terminal.says(f"deleted {fork}")
    assert (await shared.run("show", fork)).code == 2
    for short in ("last", mine[:8], mine[-8:]):
        refused = await shared.run("delete", short, "--yes")
        assert refused.code == 2
        assert "whole id" in refused.err
    assert (await shared.run("delete", mine, "--yes")).out == f"deleted {mine}\n"
