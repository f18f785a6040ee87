"""A session's pull request in a few words."""

from __future__ import annotations

from treadle.session.v1 import event_pb2 as pb


def how_far(pull: pb.PullRequestUpdated) -> str:
    """Its number and state: `#7 open, a draft`."""
    state = pb.PullRequestState.Name(pull.state).removeprefix("PULL_REQUEST_STATE_").lower()
    draft = ", a draft" if pull.draft and pull.state == pb.PULL_REQUEST_STATE_OPEN else ""
    return f"#{pull.number} {state}{draft}"
