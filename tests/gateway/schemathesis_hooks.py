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
    if isinstance(case.body, dict) and number % 8 == 0:
        wanted = {"title": "T", "updateMask": "title"} if case.method == "PATCH" else {"repositoryUrl": REPOSITORY}
        if case.operation.path.endswith(("execute", "stream")):
            wanted |= {"prompt": "go", "provider": "replay", "model": "r.jsonl"}
        if not case.operation.path.endswith("interrupt"):
            case.body = wanted
