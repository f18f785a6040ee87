"""What the command line understands: no server is asked."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

import pytest

from server.cli.arguments.files import add_files
from server.cli.arguments.sessions import add_sessions
from server.cli.main import main
from server.cli.parser import Parser
from server.cli.program import typed


def understood(words: str) -> argparse.Namespace:
    parser = Parser()
    commands = parser.add_subparsers()
    add_files(commands)
    add_sessions(commands)
    options, unknown = parser.parse_known_args(words.split())
    assert not unknown
    return options


@pytest.mark.parametrize("words", ["S dir --at 1 -r", "S --at 1 -r dir", "--at 1 S -r dir", "S -r --at 1 -- dir", "-r --at 1 S dir"])
def test_options_stand_anywhere(words: str) -> None:
    options = understood(f"files ls {words}")
    assert (options.session, options.path, options.at, options.recursive) == ("S", "dir", "1", True)


def test_what_may_be_left_out_is_taken_in_order() -> None:
    options = understood("files diff S --server X 2 3")
    assert (options.since, options.until) == ("2", "3")
    assert understood("answer S --request R yes no").answer == ["yes", "no"]
    assert understood("files ls S --at 1 -- -dir").path == "-dir"


@pytest.mark.parametrize(
    "words",
    [
        "diff S --json --stat", "cat S x --json", "ls S --etag x", "ls S --limit 1", "ls S a b", "ls S --at 1 a b", "put S a b",
        "rm S a b", "cat S a b", "mv S a", "rm S", "find S x --limit 0", "get S -x dir", "nothing S", "",
    ],
)  # fmt: skip
def test_what_would_be_ignored_is_refused_with_the_action_s_own_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["files", *words.split()])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    action = words.split()[0] if words and not words.startswith("nothing") else ""
    assert f"usage: treadle files {action or 'ACTION'} " in capsys.readouterr().err


def test_who_names_a_file_to_put_is_told_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["files", "put", "S", "x.txt", "/etc/hosts"])
    assert "`< FILE`" in capsys.readouterr().err


def test_what_a_diff_is_of_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert understood("files diff S --at 1").at == "1"
    assert understood("files diff S 1 --path src 2").path == "src"
    with pytest.raises(SystemExit):
        main(["files", "diff", "S", "0", "1", "src"])
    assert "named by --path" in capsys.readouterr().err
    assert main(["files", "diff", "S", "0", "--at", "1"]) == 2
    assert "both say it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed_path", "path"),
    [("src/", "src"), ("./src", "src"), (".", ""), ("./", ""), ("././src//", "src"), ("a/./b", "a/./b"), ("/", "/"), (".git/", ".git")],
)
@pytest.mark.parametrize("words", ["ls S {}", "ls S --at 1 {}", "find S x {}", "diff S --path {}", "rm S {}"])
def test_a_directory_is_named_as_a_shell_and_a_listing_name_it(words: str, typed_path: str, path: str) -> None:
    assert understood(f"files {words.format(typed_path)}").path == path


def test_a_file_has_no_slash_at_its_end() -> None:
    assert understood("files put S ./a").path == "a"
    assert understood("files mv S ./a/ ./b/").path == "a"
    assert understood("files mv S ./a/ ./b/").to == "b/"


def test_the_newest_commit_has_git_s_name_too() -> None:
    assert understood("files ls S --at HEAD").at == "head"
    assert understood("files diff S --server X 2 HEAD").until == "head"


def test_a_title_is_not_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rename", "S", " "]) == 2
    assert "at least one letter" in capsys.readouterr().err


def test_what_is_no_text_is_refused_before_anybody_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["files", "put", "S", "bad\udcffname"])
    assert ended.value.code == 2
    assert r"bad\xffname" in capsys.readouterr().err


def test_the_help_of_an_action_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["files", "put", "--help"])
    told = capsys.readouterr().out
    assert "--etag" in told
    assert not {"--regex", "--zip", "130"} & set(told.split())
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "130" in capsys.readouterr().out.split()


@pytest.mark.parametrize("importing", ["argparse", "server.cli.main", "grpc"])
def test_ctrl_c_while_it_is_being_loaded_ends_it_without_a_traceback(importing: str) -> None:
    program = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == {importing!r}:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
from server.cli.__main__ import run
sys.meta_path.insert(0, Interrupting())
sys.argv = ["treadle", "sessions", "--server", "127.0.0.1:1"]
sys.exit(run())
"""
    ended = subprocess.run([sys.executable, "-c", program], env=os.environ | {"TREADLE_API_KEY": "x"}, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"")


def test_a_hint_has_the_data_directory_where_the_action_takes_it(tmp_path) -> None:
    assert typed("files ls S", tmp_path).endswith(f"treadle files ls --data-dir {tmp_path} S")
    assert typed("push S", tmp_path).endswith(f"treadle push --data-dir {tmp_path} S")
