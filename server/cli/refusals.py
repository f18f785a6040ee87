"""What a person can do about a push that did not get through."""

from __future__ import annotations

import shlex
from pathlib import Path

from server.cli.program import typed
from treadle.session.v1 import event_pb2 as pb

_WHY: dict[int, str] = {
    pb.PUSH_REFUSAL_NON_FAST_FORWARD: "somebody else has moved the branch, and nothing is ever overwritten",
    pb.PUSH_REFUSAL_BRANCH_EXISTS: "a session takes no name that is there, whole or in part; a new one grows from it by `run --base`",
    pb.PUSH_REFUSAL_DEFAULT_BRANCH: "Treadle never pushes there",
    pb.PUSH_REFUSAL_PROTECTED_BRANCH: "the host's rules keep this branch",
    pb.PUSH_REFUSAL_HOOK_DECLINED: "a check of the host's does not like what the commits hold: ask for a change, or change the check",
    pb.PUSH_REFUSAL_TOO_LARGE: "the host takes no files, or pushes, of this size: raise its limit",
    pb.PUSH_REFUSAL_AUTHENTICATION: "the host wants credentials, or others: see to the token that Treadle has for it",
    pb.PUSH_REFUSAL_PERMISSION: "the host knows who pushes, and does not let them: give the token, or its owner, leave to write",
    pb.PUSH_REFUSAL_REPOSITORY_GONE: "the repository is gone, was moved, or is hidden from the token that Treadle has for it",
    pb.PUSH_REFUSAL_NETWORK: "the host could not be reached",
    pb.PUSH_REFUSAL_CONFLICT: "both sides are kept: make them one, or go on apart",
    pb.PUSH_REFUSAL_REWRITTEN: "what was taken back there is not brought back by a merge",
}
_WHY_NO_BRANCH = "a check of the host's does not let this branch be made: choose another name, or change the check"
_ELSEWHERE = (
    pb.PUSH_REFUSAL_NON_FAST_FORWARD,
    pb.PUSH_REFUSAL_BRANCH_EXISTS,
    pb.PUSH_REFUSAL_DEFAULT_BRANCH,
    pb.PUSH_REFUSAL_PROTECTED_BRANCH,
    pb.PUSH_REFUSAL_CONFLICT,
    pb.PUSH_REFUSAL_REWRITTEN,
)
"""Where another branch is a way out."""
_BY_TOKEN = (pb.PUSH_REFUSAL_AUTHENTICATION, pb.PUSH_REFUSAL_PERMISSION, pb.PUSH_REFUSAL_REPOSITORY_GONE)
"""Where another token may be."""


def what_to_do(refusal: int, session_id: str, data_dir: Path | None = None, *, repository: str = "", begun: bool = True) -> list[str]:
    """Lines for a person: what the refusal (a PushRefusal) means, where that is known, and what to type. Without `begun` there is no
    commit yet that could be pushed."""
    ask = typed(f"run --session {session_id} REQUEST", data_dir)
    another = typed(f"push {session_id} --branch NAME", data_dir)
    if not begun:
        return _before_it_began(refusal, f"then ask again: {ask}", another, _token(refusal, repository, data_dir))
    lines = [_WHY[refusal]] if refusal in _WHY else []
    lines += _token(refusal, repository, data_dir)
    if refusal == pb.PUSH_REFUSAL_CONFLICT:
        return [
            *lines,
            f"make the files as the branch has them: {typed(f'files put {session_id} PATH', data_dir)} < FILE",
            f"or go back to before you changed them: {typed(f'restore {session_id} --at NUMBER', data_dir)}",
            f"  whose numbers are told by: {typed(f'history {session_id}', data_dir)}",
            f"then a turn merges the two: {ask}",
            f"or leave that branch, and go on on another one: {another}",
        ]
    if refusal == pb.PUSH_REFUSAL_NON_FAST_FORWARD:
        return [*lines, f"the next turn merges the two: {ask}", f"or leave that branch, and go on on another one: {another}"]
    if refusal in _ELSEWHERE:
        return [*lines, f"publish it on another branch: {another}"]
    return [*lines, f"try again: {typed(f'push {session_id}', data_dir)}"]


def _before_it_began(refusal: int, again: str, another: str, token: list[str]) -> list[str]:
    if refusal == pb.PUSH_REFUSAL_HOOK_DECLINED:
        return [_WHY_NO_BRANCH, f"give the session another branch: {another}", again]
    lines = [_WHY[refusal]] if refusal in _WHY else []
    if refusal in _ELSEWHERE:
        return [*lines, f"give the session another branch: {another}", again]
    return [*lines, *token, again]


def _token(refusal: int, repository: str, data_dir: Path | None) -> list[str]:
    if refusal not in _BY_TOKEN or not repository:
        return []
    return [f"store another token: {typed(f'credential add {shlex.quote(repository)}', data_dir)}"]
