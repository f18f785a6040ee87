"""What a person can do about a push that did not get through."""

from __future__ import annotations

import shlex
from pathlib import Path

from server.cli.program import typed
from treadle.session.v1 import event_pb2 as pb

_WHY: dict[int, str] = {
    pb.PUSH_REFUSAL_NON_FAST_FORWARD: "the branch has commits that this work does not follow, and nothing is ever overwritten",
    pb.PUSH_REFUSAL_BRANCH_EXISTS: "a branch with this name, or with a part of it, is there",
    pb.PUSH_REFUSAL_DEFAULT_BRANCH: "it is the repository's default branch, to which nothing is pushed",
    pb.PUSH_REFUSAL_PROTECTED_BRANCH: "the host's rules keep this branch",
    pb.PUSH_REFUSAL_HOOK_DECLINED: "a check of the host's does not like what the commits hold: ask for a change, or change the check",
    pb.PUSH_REFUSAL_TOO_LARGE: "the host takes no files, or pushes, of this size: raise its limit",
    pb.PUSH_REFUSAL_AUTHENTICATION: "the host wants credentials, or others: see to the token that Treadle has for it",
    pb.PUSH_REFUSAL_PERMISSION: "the host knows who pushes, and does not let them: give the token, or its owner, leave to write",
    pb.PUSH_REFUSAL_REPOSITORY_GONE: "the repository is gone, was moved, or is hidden from the token that Treadle has for it",
    pb.PUSH_REFUSAL_NETWORK: "the host could not be reached",
}
_ELSEWHERE = (
    pb.PUSH_REFUSAL_NON_FAST_FORWARD,
    pb.PUSH_REFUSAL_BRANCH_EXISTS,
    pb.PUSH_REFUSAL_DEFAULT_BRANCH,
    pb.PUSH_REFUSAL_PROTECTED_BRANCH,
)
"""Where another branch is the way out."""
_BY_TOKEN = (pb.PUSH_REFUSAL_AUTHENTICATION, pb.PUSH_REFUSAL_PERMISSION, pb.PUSH_REFUSAL_REPOSITORY_GONE)
"""Where another token may be."""


def what_to_do(refusal: int, session_id: str, data_dir: Path | None = None, *, repository: str = "", begun: bool = True) -> list[str]:
    """Lines for a person: what the refusal (a PushRefusal) means, where that is known, and what to type. Without `begun` there is no
    commit yet that could be pushed."""
    lines = [_WHY[refusal]] if refusal in _WHY else []
    if refusal in _BY_TOKEN and repository:
        lines.append(f"store another token: {typed(f'credential add {shlex.quote(repository)}', data_dir)}")
    if not begun:
        return [*lines, f"then ask again: {typed(f'run --session {session_id} REQUEST', data_dir)}"]
    if refusal in _ELSEWHERE:
        return [*lines, f"publish it on another branch: {typed(f'push {session_id} --branch NAME', data_dir)}"]
    return [*lines, f"try again: {typed(f'push {session_id}', data_dir)}"]
