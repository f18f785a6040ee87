"""Archives of the old system, each layout: what they hold is found and taken out, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.legacy_archives import CONVERSATION, CONVERSATION_LINES, FILES, LAYOUTS, LINKS, OLD_HOME, TOKEN, Old

from server.legacy.isolation import Reader, Unpacked
from server.legacy.layout import conversation_in
from server.legacy.metadata import Metadata
from server.legacy.protocol import Found


async def unpacked(reader: Reader, archive: Path, scratch: Path) -> tuple[Found, Unpacked]:
    into = scratch / "into"
    into.mkdir(mode=0o700)
    with archive.open("rb") as source:
        found = await reader.look(source)
        source.seek(0)
        return found, await reader.unpack(source, found, into)


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_every_layout_gives_its_working_tree(reader: Reader, tmp_path: Path, layout: str) -> None:
    old = Old(layout)

    found, taken = await unpacked(reader, old.archive(tmp_path), tmp_path)

    assert (found.layout, found.repository, found.partial) == (layout, old.repository, layout == "T3")
    for name, content in FILES.items():
        assert (taken.tree / name).read_bytes() == content
    for name, target in LINKS.items():
        assert (taken.tree / name).readlink() == Path(target)
    assert os.access(taken.tree / "run.sh", os.X_OK)
    assert not (taken.tree / "README.md").stat().st_mode & 0o111


@pytest.mark.parametrize("said", [b"{}", b"", b'{"github": {"repoUrl": "https://github.com/example/demo"}}'])
async def test_the_only_clone_is_the_working_tree_where_nothing_names_one(reader: Reader, tmp_path: Path, said: bytes) -> None:
    folder = tmp_path / "old"
    for name, content in {".session-metadata.json": said, "sample/.git/HEAD": b"x", "sample/sub/.git": b"x", "sample/a": b"1"}.items():
        path = folder / "workspace" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content:
            path.write_bytes(content)

    found, taken = await unpacked(reader, packed(folder, tmp_path), tmp_path)
    assert (found.layout, found.repository, found.partial) == ("T0", "workspace/sample", False)
    assert (taken.tree / "a").read_bytes() == b"1"

    (folder / "workspace/other/.git").mkdir(parents=True)
    with packed(folder, tmp_path).open("rb") as source:
        found = await reader.look(source)
    # Without metadata it may as well be files alone, of which nothing is deleted.
    assert (found.repository, found.partial) == (("", False) if said else ("workspace", True))


def packed(folder: Path, scratch: Path) -> Path:
    made = scratch / "made.tar.gz"
    subprocess.run(["tar", "-czf", made, "-C", folder, "."], check=True)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_neither_the_old_git_nor_a_credential_is_taken_out(reader: Reader, tmp_path: Path, layout: str) -> None:
    archive = Old(layout).archive(tmp_path)

    found, taken = await unpacked(reader, archive, tmp_path)

    assert not (taken.tree / ".git").exists()
    left = b"".join(path.read_bytes() for path in (tmp_path / "into" / "tree").rglob("*") if path.is_file() and not path.is_symlink())
    assert TOKEN.encode() not in left
    assert TOKEN not in found.dump()


@pytest.mark.parametrize(("layout", "conversation"), [("T0", True), ("T1", True), ("T2", False), ("T3", False), ("T4", True)])
async def test_the_conversation_is_found_where_the_layout_has_one(
    reader: Reader, tmp_path: Path, layout: str, *, conversation: bool
) -> None:
    found, taken = await unpacked(reader, Old(layout).archive(tmp_path), tmp_path)

    assert found.transcript == (f".claude/projects/{OLD_HOME}/{CONVERSATION}.jsonl" if conversation else "")
    assert taken.transcript == (CONVERSATION_LINES if conversation else b"")


@pytest.mark.parametrize("shape", ["ai", "github"])
async def test_both_shapes_of_metadata_are_read(reader: Reader, tmp_path: Path, shape: str) -> None:
    found, taken = await unpacked(reader, Old("T1", shape=shape).archive(tmp_path), tmp_path)

    said = Metadata.parse(found.metadata)
    assert (said.repository_url, said.base_branch) == ("https://github.com/example/demo", "main")
    assert (said.branch, said.title, said.cloned_path) == ("webedt/make-it-so-3c4d5e6f", "Make it so", "demo")
    assert said.conversation_id == (CONVERSATION if shape == "ai" else "")
    assert taken.transcript == CONVERSATION_LINES, "without its id the youngest conversation is taken"


@pytest.mark.parametrize(
    ("url", "known"),
    [
        (f"https://{TOKEN}@github.com/o/r", "https://github.com/o/r"),
        (f"https://x-access-token:{TOKEN}@github.com/o/r.git", "https://github.com/o/r.git"),
        ("git@github.com:o/r.git", "https://github.com/o/r.git"),
        ("file:///etc", ""),
        ("nonsense", ""),
        ("https://[", ""),
    ],
)
def test_a_repository_url_loses_its_credentials(url: str, known: str) -> None:
    assert Metadata.parse(f'{{"github": {{"repoUrl": "{url}"}}}}').repository_url == known


async def test_looking_writes_nothing(reader: Reader, tmp_path: Path) -> None:
    archive = Old("T1").archive(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    with archive.open("rb") as source:
        await reader.look(source)

    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("said", "found"),
    [("b", "b.jsonl"), ("", "c.jsonl"), ("gone", "")],
    ids=["the one that is named", "else the youngest", "none where that is not there"],
)
def test_which_conversation_is_the_newest(said: str, found: str) -> None:
    folder = ".claude/projects/-tmp-x/"
    times = {"a.jsonl": 1, "b.jsonl": 2, "c.jsonl": 3, "agent-d.jsonl": 4, "e.txt": 5, "deeper/f.jsonl": 6}
    files = {f"{folder}{name}".encode(): float(time) for name, time in times.items()}

    assert conversation_in(files, Metadata(conversation_id=said)).decode() == (found and folder + found)
