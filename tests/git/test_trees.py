"""What commits hold: listed, read, searched, packed and compared, without a working tree."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from support.git_server import git
from support.git_world import BASE, World

from server.git.blobs import MOST
from server.kernel.errors import InvalidField, NotADirectory, NotAFile, PathInvalid, PathNotFound, SearchTooSlow, StateGone, TooManyStreams
from server.kernel.ports.trees import ArchiveFormat, Kind

BIG = os.urandom(3 * 1024 * 1024)
WHOLE = {"offset": 0, "length": None}


async def _fetched(world: World, files: dict[str, str | bytes], *, link: str = "") -> str:
    """A commit of the remote with these files besides the demo's; `link` is a symbolic link out of the tree."""
    if link:
        (world.server.root / "demo-seed" / link).symlink_to("/etc/passwd")
    world.server.commit("demo", files)
    return await world.fetch()


async def _all(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def _names(world: World, commit: str, path: str = "", *, recursive: bool = False, limit: int = 100) -> list[str]:
    """All pages."""
    shown, after = [], ""
    while True:
        page = await world.git.trees.listing(world.repository, commit, path, recursive=recursive, after=after, limit=limit)
        shown += [entry.path for entry in page.entries]
        assert len(page.entries) <= limit
        if not (after := page.next_path):
            return shown


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_directory_is_listed_page_by_page_in_the_order_of_git(world: World, limit: int) -> None:
    commit = await _fetched(world, {"src.py": "", "src-x/a": "", "src/zoë.txt": "", "src/deep/down/e": ""})
    assert await _names(world, commit, limit=limit) == [".gitignore", "README.md", "docs", "src-x", "src.py", "src"]
    assert await _names(world, commit, "src", limit=limit) == ["src/app.py", "src/deep", "src/zoë.txt"]
    told = git(world.remote, "-c", "core.quotePath=false", "ls-tree", "-r", "--name-only", commit).splitlines()
    assert await _names(world, commit, recursive=True, limit=limit) == told
    assert await _names(world, commit, "src", recursive=True, limit=limit) == [path for path in told if path.startswith("src/")]


async def test_entries_tell_kind_size_and_etag(world: World) -> None:
    commit = await _fetched(world, {"big": BIG}, link="out")
    trees = world.git.trees
    found = {
        entry.path: entry for entry in (await trees.listing(world.repository, commit, "", recursive=False, after="", limit=99)).entries
    }
    assert (found["out"].kind, found["out"].size) == (Kind.LINK, len("/etc/passwd"))
    assert (found["big"].kind, found["big"].size) == (Kind.FILE, len(BIG))
    assert (found["src"].kind, found["src"].size) == (Kind.DIRECTORY, 0)
    assert found["big"].etag == git(world.remote, "rev-parse", f"{commit}:big")
    assert await trees.entry(world.repository, commit, "big") == found["big"]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, None), (5, 10), (0, 0), (len(BIG) - 3, 99), (2_000_000, None), (len(BIG) + 1, None), (9, 1)]
)
async def test_a_part_of_a_large_file_is_read(world: World, offset: int, length: int | None) -> None:
    commit = await _fetched(world, {"big": BIG})
    content = await world.git.trees.read(world.repository, commit, "big", offset=offset, length=length)
    assert content.entry.size == len(BIG)
    assert await _all(content.chunks) == BIG[offset:][:length]


async def test_a_link_is_read_as_a_link(world: World) -> None:
    commit = await _fetched(world, {}, link="out")
    content = await world.git.trees.read(world.repository, commit, "out", **WHOLE)
    assert await _all(content.chunks) == b"/etc/passwd"
    with pytest.raises(NotADirectory):
        await world.git.trees.entry(world.repository, commit, "out/x")


async def test_a_reader_that_leaves_in_the_middle_disturbs_nobody(world: World) -> None:
    commit = await _fetched(world, {"big": BIG})
    content = await world.git.trees.read(world.repository, commit, "big", **WHOLE)
    async with aclosing(content.chunks) as chunks:
        await anext(chunks)
    again = await world.git.trees.read(world.repository, commit, "README.md", **WHOLE)
    assert await _all(again.chunks) == BASE["README.md"].encode()


async def test_so_many_large_reads_at_a_time_and_no_more(world: World) -> None:
    commit = await _fetched(world, {"big": BIG})
    opened = [(await world.git.trees.read(world.repository, commit, "big", **WHOLE)).chunks for _ in range(5)]
    for chunks in opened[:4]:
        await anext(chunks)
    with pytest.raises(TooManyStreams):
        await anext(opened[4])
    part = await world.git.trees.read(world.repository, commit, "big", offset=2_000_000, length=9)
    assert await _all(part.chunks) == BIG[2_000_000:][:9]
    for chunks in opened:
        await chunks.aclose()
    assert await _all((await world.git.trees.read(world.repository, commit, "big", **WHOLE)).chunks) == BIG


async def test_what_is_not_there_is_told(world: World) -> None:
    commit = await world.fetch()
    trees = world.git.trees
    with pytest.raises(PathNotFound):
        await trees.entry(world.repository, commit, "src/nothing")
    with pytest.raises(NotAFile):
        await trees.read(world.repository, commit, "src", **WHOLE)
    with pytest.raises(NotADirectory):
        await trees.listing(world.repository, commit, "README.md", recursive=False, after="", limit=9)
    with pytest.raises(StateGone):
        await trees.entry(world.repository, "1" * 40, "README.md")
    for path in ("/etc/passwd", "../x", "src//app.py", "a\0b", "./a", "src/", "a/" * 200 + "a", "x" * 256, "\ud800"):
        with pytest.raises(PathInvalid):
            await trees.entry(world.repository, commit, path)


async def test_archives_hold_the_files_as_they_are_and_not_as_attributes_say(world: World) -> None:
    files = {
        ".gitattributes": "README.md export-ignore\nid.txt export-subst ident\n*.txt eol=crlf\n", "id.txt": "$Format:%an$ $Id$\n",
        "big": BIG, "empty": "", "deep/" * 30 + "x": "deep",
    }  # fmt: skip
    commit = await _fetched(world, files, link="out")
    expected = {path: content.encode() if isinstance(content, str) else content for path, content in {**BASE, **files}.items()}
    packed = await _all(await world.git.trees.archive(world.repository, commit, "", ArchiveFormat.TAR_GZ))
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert {each.name: tar.extractfile(each).read() for each in tar if each.isfile()} == expected
        assert tar.getmember("out").linkname == "/etc/passwd"
        assert {each.mtime for each in tar} == {1700000000}
    packed = await _all(await world.git.trees.archive(world.repository, commit, "", ArchiveFormat.ZIP))
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {**expected, "out": b"/etc/passwd"}
    packed = await _all(await world.git.trees.archive(world.repository, commit, "src", ArchiveFormat.TAR_GZ))
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert tar.getnames() == ["app.py", "deep/er.py"]


async def test_archives_that_are_left_in_the_middle_hold_nobody_up(world: World) -> None:
    commit = await _fetched(world, {"big": BIG})
    for _ in range(2 * MOST):
        async with aclosing(await world.git.trees.archive(world.repository, commit, "", ArchiveFormat.TAR_GZ)) as chunks:
            await anext(chunks)
    packed = await _all(await world.git.trees.archive(world.repository, commit, "", ArchiveFormat.TAR_GZ))
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert tar.extractfile("big").read() == BIG


async def test_an_archive_of_what_is_not_all_here_fails(world: World) -> None:
    await world.fetch()
    tree = git(world.mirror, "mktree", "--missing", stdin=b"100644 blob %b\tx\n" % (b"1" * 40))
    commit = git(world.mirror, "commit-tree", tree, "-m", "x")
    with pytest.raises(StateGone):
        await _all(await world.git.trees.archive(world.repository, commit, "", ArchiveFormat.ZIP))


async def test_a_file_whose_content_is_not_here_is_not_an_empty_one(world: World) -> None:
    commit = await _fetched(world, {"empty": ""})
    assert await _all((await world.git.trees.read(world.repository, commit, "empty", **WHOLE)).chunks) == b""
    tree = git(world.mirror, "mktree", "--missing", stdin=b"100644 blob %b\tx\n" % (b"1" * 40))
    commit = git(world.mirror, "commit-tree", tree, "-m", "x")
    trees = world.git.trees
    for asked in (
        trees.entry(world.repository, commit, "x"),
        trees.read(world.repository, commit, "x", **WHOLE),
        trees.listing(world.repository, commit, "", recursive=False, after="", limit=9),
        trees.names(world.repository, commit, "x", path="", limit=9),
    ):
        with pytest.raises(StateGone):
            await asked


async def test_a_link_of_many_bytes_is_not_held(world: World) -> None:
    """Its mode and its size are the remote's."""
    large = world.tmp / "large"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    blob = git(world.remote, "hash-object", "-w", str(large))
    tree = git(world.remote, "mktree", stdin=f"120000 blob {blob}\tlink\n100644 blob {blob}\tz\n".encode())
    git(world.remote, "update-ref", "refs/heads/main", git(world.remote, "commit-tree", tree, "-m", "x"))
    commit = await world.fetch()
    tracemalloc.start()
    try:
        packed = await _all(await world.git.trees.archive(world.repository, commit, "", ArchiveFormat.TAR_GZ))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert [(each.name, each.size, len(each.linkname)) for each in tar] == [("link", 0, 0), ("z", 64 * 1024 * 1024, 0)]


async def test_names_that_lead_out_are_in_no_archive(world: World) -> None:
    blob = git(world.remote, "hash-object", "-w", "--stdin", stdin=b"evil")

    def tree(*entries: tuple[str, str, str]) -> str:
        raw = b"".join(b"%b %b\0%b" % (mode.encode(), os.fsencode(name), bytes.fromhex(identity)) for mode, name, identity in entries)
        return git(world.remote, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)

    within = tree(("100644", "x", blob))
    hostile = tree(
        ("100644", "..\\up", blob), ("40000", "..", within), ("40000", ".GIT", within), ("120000", "a", blob), ("40000", "a", within),
        ("100644", "b/../../c", blob), ("120000", "l", blob), ("100644", "l/x", blob), ("100644", "..\udcff", blob),
        ("100644", "fine", blob),
    )  # fmt: skip
    commit = git(world.remote, "commit-tree", hostile, "-m", "x")
    git(world.remote, "update-ref", "refs/heads/main", commit)
    await world.fetch()
    for archive in ArchiveFormat:
        packed = await _all(await world.git.trees.archive(world.repository, commit, "", archive))
        if archive is ArchiveFormat.ZIP:
            zipped = zipfile.ZipFile(io.BytesIO(packed))
            names = zipped.namelist()
            assert zipped.comment == b"2 files are left out for their names; a tar.gz holds them"
        else:
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
                names = tar.getnames()
        only_in_tar = set() if archive is ArchiveFormat.ZIP else {"..\\up", "..\udcff"}
        assert set(names) == {"a", "fine", "l"} | only_in_tar, archive


async def test_names_are_found_by_a_part_or_a_glob(world: World) -> None:
    commit = await _fetched(world, {"src/App.tsx": "", "lib/app/x": ""})
    find = world.git.trees.names

    async def found(pattern: str, path: str = "", limit: int = 99) -> list[str]:
        return [entry.path for entry in await find(world.repository, commit, pattern, path=path, limit=limit)]

    assert await found("app") == ["lib/app/x", "src/App.tsx", "src/app.py"]
    assert await found("app", "src") == ["src/App.tsx", "src/app.py"]
    assert await found("*.py") == ["src/app.py", "src/deep/er.py"]
    assert await found("src/*.py", limit=1) == ["src/app.py"]


async def test_lines_are_found(world: World) -> None:
    commit = await _fetched(world, {"a.txt": "one\nT(w)o: x\nlong " + "y" * 5000 + "\n", "b/c.txt": "t(w)o\n", "bin": b"T(w)o\0"})
    grep = world.git.trees.grep

    async def found(
        pattern: str, *, path: str = "", regex: bool = False, ignore_case: bool = False, limit: int = 99
    ) -> list[tuple[str, int, str]]:
        matches, _ = await grep(world.repository, commit, pattern, path=path, regex=regex, ignore_case=ignore_case, limit=limit)
        return [(match.path, match.line, match.text) for match in matches]

    assert await found("T(w)o") == [("a.txt", 2, "T(w)o: x")]
    assert await found("t(w)o", ignore_case=True) == [("a.txt", 2, "T(w)o: x"), ("b/c.txt", 1, "t(w)o")]
    assert await found("t(w)o", ignore_case=True, limit=1) == [("a.txt", 2, "T(w)o: x")]
    assert await found("^[T].w.o$", path="b", regex=True) == []
    assert await found(r"^t\(w\)o$", path="b", regex=True) == [("b/c.txt", 1, "t(w)o")]
    assert await found("--no-such-option") == []
    assert len((await found("yyyy"))[0][2]) == 1000
    with pytest.raises(InvalidField):
        await found("(", regex=True)
    with pytest.raises(SearchTooSlow):
        await found("((a{1,99}){1,99}){1,99}", regex=True)
    with pytest.raises(PathNotFound):
        await found("x", path="nowhere")


async def test_a_search_tells_whether_there_is_more(world: World) -> None:
    commit = await _fetched(world, {"a.txt": "one\none\n", "z/long.txt": "y" * 5 * 1024 * 1024 + "\n", "z/of.txt": "y\n"})

    async def more(pattern: str, limit: int) -> tuple[int, bool]:
        found, more = await world.git.trees.grep(
            world.repository, commit, pattern, path="", regex=False, ignore_case=False, limit=limit
        )  # fmt: skip
        return len(found), more

    assert await more("one", 1) == (1, True)
    assert await more("one", 2) == (2, False)
    assert await more("yyyy", 99) == (1, True), "a line that ends the search: nobody has looked behind it"


async def test_two_commits_make_one_patch(world: World) -> None:
    base = await world.fetch()
    head = await _fetched(world, {"README.md": "# demo\ntwo\n", "bin": b"\0\1\2", "docs/guide.md": "other\n"})
    patch = await _all(await world.git.trees.patch(world.repository, base, head, path=""))
    git(world.remote, "read-tree", base)
    git(world.remote, "apply", "--cached", stdin=patch)
    assert git(world.remote, "write-tree") == git(world.remote, "rev-parse", f"{head}^{{tree}}")
    part = await _all(await world.git.trees.patch(world.repository, base, head, path="docs"))
    assert part.count(b"diff --git") == 1
    with pytest.raises(StateGone):
        await world.git.trees.patch(world.repository, base, "2" * 40, path="")
