"""What a tree takes of the disk."""

from __future__ import annotations

from pathlib import Path

from server.workers.disk import occupied


async def test_bytes_and_files_are_counted_and_a_file_with_two_names_once(tmp_path: Path) -> None:
    before = await occupied(tmp_path)
    assert before.files == 1
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "again").hardlink_to(tmp_path / "large")
    for number in range(50):
        (tmp_path / f"empty-{number}").touch()
    (tmp_path / "link").symlink_to("nowhere")
    after = await occupied(tmp_path)
    assert after.files == 53
    assert 100_000 <= after.bytes - before.bytes < 200_000


async def test_of_a_tree_that_is_gone_nothing_is_left(tmp_path: Path) -> None:
    gone = await occupied(tmp_path / "gone")
    assert (gone.bytes, gone.files) == (0, 0)
