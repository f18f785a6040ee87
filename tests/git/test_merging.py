"""Merges in the mirror, of what anybody may have pushed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.git_server import git
from support.git_world import AT, AUTHOR, BRANCH, SESSION, World

from server.kernel.errors import BranchDiverged, RepositoryUnreachable


async def sides(world: World, ours: dict[str, str], theirs: dict[str, str]) -> tuple[str, str]:
    """Two commits on the same one: of the session, which was not pushed, and of somebody, on the branch."""
    base = await world.fetch()
    await world.push(base, create=True)
    workspace = await world.workspace(base)
    for name, content in ours.items():
        (workspace / name).write_text(content)
    made = (await world.import_(workspace, base)).commit
    assert made is not None
    pushed = world.server.commit("demo", theirs, branch=BRANCH)
    assert await world.fetch(made) == pushed
    return made, pushed


async def merge(world: World, ours: str, theirs: str) -> str:
    return await world.git.merge(world.repository, ours=ours, theirs=theirs, branch=BRANCH, message="both", author=AUTHOR, at=AT)


async def test_both_sides_changes_in_one_commit(world: World) -> None:
    ours, theirs = await sides(world, {"README.md": "mine\n"}, {"new": "theirs\n"})
    assert not await world.git.follows(world.repository, theirs, of=ours)
    made = await merge(world, ours, theirs)
    assert await merge(world, ours, theirs) == made
    for side in (ours, theirs):
        assert await world.git.follows(world.repository, made, of=side)
    told = git(world.mirror, "show", "--format=%P %an %s", "--no-patch", made)
    assert told == f"{ours} {theirs} {AUTHOR.name} both"
    assert git(world.mirror, "show", f"{made}:README.md") + git(world.mirror, "show", f"{made}:new") == "minetheirs"
    # Any replica can have it from the object store.
    bundle = world.tmp / "bundle"
    await world.git.bundle(world.repository, session_id=SESSION, base=ours, head=made, into=bundle)
    await world.git.restore(world.repository, session_id=SESSION, bundle=bundle, base=ours, head=made)
    await world.push(made)
    assert world.pushed("rev-parse", BRANCH) == made


async def test_a_conflict_names_what_both_changed(world: World) -> None:
    ours, theirs = await sides(world, {"README.md": "mine\n"}, {"README.md": "theirs\n"})
    with pytest.raises(BranchDiverged) as refused:
        await merge(world, ours, theirs)
    assert "both changed README.md." in refused.value.message
    assert refused.value.metadata == {"branch": BRANCH, "theirs": theirs, "ours": ours}


async def test_attributes_of_a_tree_choose_no_program(world: World, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    config = f'[merge "evil"]\n driver = touch {ran}\n[filter "evil"]\n clean = touch {ran}\n smudge = touch {ran}\n'
    attributes = {".gitattributes": "* merge=evil filter=evil\n", ".gitconfig": config, "README.md": "theirs\n"}
    ours, theirs = await sides(world, {".gitattributes": attributes[".gitattributes"], "README.md": "mine\n"}, attributes)
    with pytest.raises(BranchDiverged, match=r"README\.md"):
        await merge(world, ours, theirs)
    assert not ran.exists()


async def test_what_cannot_be_merged_is_no_conflict(world: World) -> None:
    ours, _ = await sides(world, {"README.md": "mine\n"}, {"new": "theirs\n"})
    with pytest.raises(RepositoryUnreachable):
        await merge(world, ours, "1" * 40)
    assert not await world.git.follows(world.repository, ours, of="1" * 40)
