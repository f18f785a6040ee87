"""What a person can do about a push that did not get through."""

from __future__ import annotations

from treadle.session.v1 import event_pb2 as pb

_ADVICE = {
    pb.PUSH_REFUSAL_NON_FAST_FORWARD: "the branch has commits that this work does not follow, and nothing is ever overwritten",
    pb.PUSH_REFUSAL_BRANCH_EXISTS: "a branch with this name, or with a part of it, is there",
    pb.PUSH_REFUSAL_DEFAULT_BRANCH: "it is the repository's default branch, to which nothing is pushed",
    pb.PUSH_REFUSAL_PROTECTED_BRANCH: "the host's rules keep this branch: change them there",
    pb.PUSH_REFUSAL_HOOK_DECLINED: "a check of the host's does not like what the commits hold: ask for a change, or change the check",
    pb.PUSH_REFUSAL_TOO_LARGE: "the host takes no files, or pushes, of this size: raise its limit",
    pb.PUSH_REFUSAL_AUTHENTICATION: "the host wants credentials, or others: renew the token that this server has for it",
    pb.PUSH_REFUSAL_PERMISSION: "the host knows who pushes, and does not let them: give the token's owner, or the token, leave to write",
    pb.PUSH_REFUSAL_REPOSITORY_GONE: "the repository is gone, was moved, or is hidden from the token that this server has for it",
    pb.PUSH_REFUSAL_NETWORK: "the host could not be reached",
}


def what_to_do(refusal: pb.PushRefusal) -> str:
    """In one sentence; empty where only the remote's own words say it."""
    return _ADVICE.get(refusal, "")
