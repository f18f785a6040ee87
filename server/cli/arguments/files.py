"""What `treadle files` takes."""

from __future__ import annotations

from server.cli.arguments.places import directory_path, file_path, point
from server.cli.parser import Commands, Parser, add_command, add_connection, add_group, add_json, add_session, count

_WHERE = "the directory to look in (default: everywhere)"
_COMMITS = "While a turn runs, this looks at the session's newest commit, and not at what the agent has not committed yet."


def add_files(commands: Commands[Parser]) -> None:
    """A session's files, without a worker."""
    files = add_group(commands, "files", "list, read, search, compare and edit a session's files")
    _add_ls(files)
    _add_cat(files)
    _add_get(files)
    _add_find(files)
    _add_grep(files)
    _add_diff(files)
    _add_put(files)
    _add_mv(files)
    _add_rm(files)
    _add_mkdir(files)


def _add_ls(files: Commands[Parser]) -> None:
    ls = _action(files, "ls", "list a directory, or one file", runs="server.cli.files.listing:ls")
    ls.add_argument("path", metavar="PATH", nargs="?", default="", type=directory_path, help="default: the repository's root")
    ls.add_argument("-l", "--long", action="store_true", help="with etags, as --etag of put, mv and rm takes them")
    ls.add_argument("-r", "--recursive", action="store_true", help="all files below, without the directories")
    _add_at(ls)
    add_json(ls)
    add_connection(ls)


def _add_cat(files: Commands[Parser]) -> None:
    cat = _action(files, "cat", "print a file", runs="server.cli.files.reading:cat")
    cat.add_argument("path", metavar="PATH", type=file_path, help="the file")
    _add_at(cat)
    add_connection(cat)


def _add_get(files: Commands[Parser]) -> None:
    get = _action(
        files, "get", "download a file, or a directory as an archive (tar.gz)", runs="server.cli.files.reading:get", epilog=_COMMITS
    )
    get.add_argument("path", metavar="PATH", nargs="?", default="", type=directory_path, help="default: the repository's root")
    get.add_argument("-o", "--output", metavar="FILE", help="write it there, or into this directory (default: to standard output)")
    get.add_argument("--zip", action="store_true", help="a zip file in place of a tar.gz")
    _add_at(get)
    add_connection(get)


def _add_find(files: Commands[Parser]) -> None:
    find = _action(files, "find", "find files by their names", runs="server.cli.files.searching:find", epilog=_COMMITS)
    find.add_argument("pattern", metavar="PATTERN", help="a part of the path, or a glob like *.py")
    find.add_argument("path", metavar="WHERE", nargs="?", default="", type=directory_path, help=_WHERE)
    _add_search(find)


def _add_grep(files: Commands[Parser]) -> None:
    grep = _action(files, "grep", "find lines in text files", runs="server.cli.files.searching:grep", epilog=_COMMITS)
    grep.add_argument("pattern", metavar="PATTERN", help="the text to find")
    grep.add_argument("path", metavar="WHERE", nargs="?", default="", type=directory_path, help=_WHERE)
    grep.add_argument("-E", "--regex", action="store_true", help="PATTERN is a regular expression (POSIX, extended)")
    grep.add_argument("-i", "--ignore-case", action="store_true", help="upper and lower case alike")
    _add_search(grep)


def _add_diff(files: Commands[Parser]) -> None:
    words = "compare two times of a session, as a patch"
    diff = _action(files, "diff", words, runs="server.cli.files.reading:diff", epilog=_COMMITS)
    when = "a number of its `history`, a turn's id, a commit or head"
    diff.add_argument("since", metavar="FROM", nargs="?", default="", type=point, help=f"{when} (default: before the newest commit)")
    diff.add_argument("until", metavar="TO", nargs="?", default="", type=point, help="the same (default: the newest commit)")
    diff.add_argument("--at", metavar="FROM", default="", type=point, help="the same as FROM: from then to the newest commit")
    diff.add_argument(
        "--path", metavar="PATH", default="", type=directory_path, help="the file or directory to compare (default: everything)"
    )
    how = diff.add_mutually_exclusive_group()
    how.add_argument("--stat", action="store_true", help="only which files differ, and in how many lines")
    how.add_argument("--json", action="store_true", help="print JSON, one object per file")
    add_connection(diff)


def _add_put(files: Commands[Parser]) -> None:
    put = _action(files, "put", "make a file of standard input, or replace one", runs="server.cli.files.editing:put")
    put.add_argument("path", metavar="PATH", type=file_path, help="the file; directories that lead there are made")
    _add_etag(put, '; "": only where there is none')
    add_json(put)
    add_connection(put)


def _add_mv(files: Commands[Parser]) -> None:
    mv = _action(files, "mv", "move a file or a directory to where nothing is", runs="server.cli.files.editing:mv")
    mv.add_argument("path", metavar="PATH", type=directory_path, help="what to move")
    mv.add_argument("to", metavar="TO", type=file_path, help="its new path")
    _add_etag(mv)
    add_json(mv)
    add_connection(mv)


def _add_rm(files: Commands[Parser]) -> None:
    rm = _action(files, "rm", "remove a file, or a directory", runs="server.cli.files.editing:rm")
    rm.add_argument("path", metavar="PATH", type=directory_path, help="what to remove")
    rm.add_argument("-r", "--recursive", action="store_true", help="also a directory, with all that it holds")
    _add_etag(rm)
    add_json(rm)
    add_connection(rm)


def _add_mkdir(files: Commands[Parser]) -> None:
    mkdir = _action(files, "mkdir", "make a directory", runs="server.cli.files.editing:mkdir")
    mkdir.add_argument("path", metavar="PATH", type=directory_path, help="the directory; those that lead there are made")
    add_json(mkdir)
    add_connection(mkdir)


def _action(files: Commands[Parser], name: str, words: str, *, runs: str, epilog: str = "") -> Parser:
    action = add_command(files, name, words, runs=runs, epilog=epilog)
    add_session(action)
    return action


def _add_at(action: Parser) -> None:
    action.add_argument(
        "--at",
        metavar="WHEN",
        default="",
        type=point,
        help="a number of its `history`, 0 for its begin, a turn's id, a commit or head (default: now)",
    )


def _add_search(action: Parser) -> None:
    _add_at(action)
    action.add_argument("--limit", metavar="N", type=count, default=100, help="how many at most, up to 1000 (default 100)")
    add_json(action)
    add_connection(action)


def _add_etag(action: Parser, more: str = "") -> None:
    action.add_argument("--etag", help=f"only while the file has this etag (`files ls -l`){more}")
