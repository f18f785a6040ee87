"""Archives of strangers: refused with a reason, or harmless; and what one does not see, the other stops."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from support.hostile_archives import CORPUS, TARGET, Hostile

from server.legacy.isolation import Reader
from server.legacy.protocol import Limits, Request
from server.legacy.reader import look, unpack
from server.legacy.tar import Refused


@pytest.mark.parametrize("hostile", CORPUS.values(), ids=CORPUS.keys())
async def test_a_hostile_archive_is_refused_or_harmless(hostile: Hostile) -> None:
    source = io.BytesIO(hostile.make())

    if not hostile.reason:
        look(source, Limits())
        return
    with pytest.raises(Refused) as refused:
        look(source, Limits())
    assert refused.value.reason == hostile.reason


@pytest.mark.parametrize("hostile", CORPUS.values(), ids=CORPUS.keys())
async def test_nothing_is_written_outside_by_one_that_nobody_looked_at(hostile: Hostile, tmp_path: Path) -> None:
    into = tmp_path / "a" / "into"
    into.mkdir(parents=True)

    try:
        unpack(io.BytesIO(hostile.make()), Request(into=str(into), repository="workspace"))
    except Refused:
        assert hostile.reason

    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["into"]
    assert not Path(TARGET).exists()
    for path in into.rglob("*"):
        assert path.is_symlink() or path.is_dir() or path.is_file()
        assert path.is_symlink() or not path.stat().st_mode & 0o7077


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(members=3), "TOO_MANY"),
        (Limits(names_bytes=60), "TOO_MANY"),
        (Limits(unpacked_bytes=1500), "TOO_LARGE"),
        (Limits(archive_bytes=100), "TOO_LARGE"),
        (Limits(depth=2), "TOO_DEEP"),
    ],
)
def test_each_limit_is_one(limits: Limits, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        look(io.BytesIO(CORPUS["odd_names"].make()), limits)
    assert refused.value.reason == reason


@pytest.mark.parametrize("name", ["hard_link_to_the_host", "zeros", "realpath_chain", "no_gzip", "odd_names"])
async def test_a_refusal_comes_out_of_the_sandbox(reader: Reader, tmp_path: Path, name: str) -> None:
    archive = tmp_path / "session.tar.gz"
    archive.write_bytes(CORPUS[name].make())

    with archive.open("rb") as source:
        if not CORPUS[name].reason:
            await reader.look(source)
            return
        with pytest.raises(Refused) as refused:
            await reader.look(source)
    assert refused.value.reason == CORPUS[name].reason
