"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): some calls are acceptable, so that more than refusals is seen."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

SESSION, REPOSITORY = os.environ["SESSION_ID"], os.environ["REPOSITORY_URL"]
ASKING = {"sessionId": os.environ["ASKING_SESSION_ID"], "inputId": os.environ["INPUT_ID"], "requestId": os.environ["REQUEST_ID"]}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Half of them meet a session, an input and a request that there are, and an eighth ask for what can be done. Decided by the case's own
    content, so that a run can be repeated."""
    if isinstance(case.body, dict) and str(case.body.get("repositoryUrl")).startswith("https://"):
        # An example: nobody shall be called outside of the tests.
        case.body["repositoryUrl"] = REPOSITORY
    if case.method == "QUERY":
        # Envoy refuses one without a media type, as the method's own rules say; this is about the path.
        case.headers = {**(case.headers or {}), "content-type": "application/json"}
    if isinstance(case.body, dict):
        # Protobuf reads numbers in place of enums' names, and of texts that hold large numbers. That is no promise.
        case.body |= {
            name: "none" for name in ("approvals", "delivery", "version", "state", "method") if isinstance(case.body.get(name), int)
        }
    starts_turn = case.operation.path.endswith(("execute", "stream")) and isinstance(case.body, dict)
    if starts_turn:
        # A turn that waits for a person goes on until the call's own limit; what it would show is in test_ways_in.py.
        if case.body.get("approvals") == "APPROVALS_ASK":
            del case.body["approvals"]
        # One turn is enough to see what a stream looks like: calls that are repeated find it.
        if case.body.get("requestId", "") == "":
            case.body["requestId"] = f"only-{case.operation.path}"
    number = len(repr(case.path_parameters) + repr(case.query) + repr(case.body))
    if number % 2:
        return
    named = case.path_parameters or {}
    if "inputId" in named or "requestId" in named:
        case.path_parameters = {name: ASKING[name] for name in named}
    elif "sessionId" in named and case.method != "DELETE":
        case.path_parameters["sessionId"] = SESSION
    if "sessionId" in (case.query or {}):
        case.query["sessionId"] = SESSION
    if isinstance(case.body, dict) and number % 8 == 0 and not case.meta.generation.mode.is_negative:
        wanted = {"title": "T", "updateMask": "title"} if case.method == "PATCH" else {"repositoryUrl": REPOSITORY}
        if starts_turn:
            wanted |= {"prompt": "go", "provider": "replay", "model": "r.jsonl", "requestId": "one"}
        if not case.operation.path.endswith("interrupt"):
            case.body = wanted
