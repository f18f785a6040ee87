"""What commands about code hosts take."""

from __future__ import annotations

from server.cli.parser import Commands, Parser, add_command, add_connection, add_group, add_json, add_limit, add_session


def add_hosts(commands: Commands[Parser]) -> None:
    """What gets into hosts, and what they do."""
    _add_credential(commands)
    _add_repos(commands)
    _add_pr(commands)


def _add_credential(commands: Commands[Parser]) -> None:
    credential = add_group(commands, "credential", "store, list or remove what gets you into code hosts, or log in at one that is GitHub")
    epilog = "The token is asked for, or read from standard input; it is never an argument, which others could see."
    add = add_command(credential, "add", "store a token for a host", runs="server.cli.credential:run", epilog=epilog)
    add.add_argument("host", metavar="HOST", help="github.com, or a prefix that the server's operator allows")
    add.add_argument(
        "--github-app", nargs=2, metavar=("APP", "INSTALLATION"), help="a GitHub App and the number of its installation; its key is read"
    )
    add.add_argument("--username", metavar="NAME", default="", help="the name to show with it (default: x-access-token, for GitHub)")
    words = "log in at a host that is GitHub: it shows a code to enter in a browser, and needs no token"
    login = add_command(credential, "login", words, runs="server.cli.credential:run")
    login.add_argument("host", metavar="HOST", help="github.com, or another that the server's operator has made an OAuth app for")
    listing = add_command(credential, "list", "list what is stored; no token is shown", runs="server.cli.credential:run")
    listing.add_argument("host", metavar="HOST", nargs="?", default="", help="default: all")
    remove = add_command(credential, "remove", "remove what is stored for a host", runs="server.cli.credential:run")
    remove.add_argument("host", metavar="HOST", help="the host, or the credential's id")
    for action in (add, login, listing, remove):
        action.set_defaults(action=action.prog.rpartition(" ")[2])
        add_json(action)
        add_connection(action)


def _add_repos(commands: Commands[Parser]) -> None:
    repos = add_command(commands, "repos", "list the repositories that you can see on a code host", runs="server.cli.repos:run")
    repos.add_argument("host", metavar="HOST", nargs="?", default="", help="as credentials name it (default: github.com)")
    add_limit(repos, 30)
    add_json(repos)
    add_connection(repos)


def _add_pr(commands: Commands[Parser]) -> None:
    pr = add_group(commands, "pr", "make a pull request of a session's branch, look at it, or merge it")
    words = {
        "create": "make a pull request of a session's branch",
        "show": "show the newest pull request of a session's branch",
        "merge": "merge it as it is now",
        "auto": "all of it, from the branch to its merge",
    }
    actions = {name: add_command(pr, name, said, runs="server.cli.pr:run") for name, said in words.items()}
    for action in actions.values():
        add_session(action)
        action.add_argument("--base", metavar="BRANCH", default="", help="where it shall be merged (default: where the session grew from)")
    for name in ("create", "auto"):
        actions[name].add_argument("--title", metavar="TEXT", default="", help="default: one is made")
        actions[name].add_argument("--body", metavar="TEXT", default="", help="default: one is made")
    actions["create"].add_argument("--draft", action="store_true", help="one that is not ready")
    actions["merge"].add_argument("--squash", action="store_true", help="as one commit")
    actions["auto"].add_argument("--keep-branch", action="store_true", help="do not delete the branch after the merge")
    for name, action in actions.items():
        action.set_defaults(action=name)
        add_json(action)
        add_connection(action)
