"""`treadle pr`: a session's branch as a pull request."""

from __future__ import annotations

import argparse
import asyncio

from google.protobuf.json_format import MessageToJson

from server.cli.connection import connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.cli.screen import Screen
from server.data_dir import chosen_data_dir
from treadle.git.v1 import git_service_pb2 as pb
from treadle_client import AsyncTreadle, AutoPullRequestResponse, PullRequest


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    asyncio.run(_run(options))
    return ExitCode.DONE


async def _run(options: argparse.Namespace) -> None:
    async with connected(options) as connection:
        treadle = connection.treadle
        if options.action == "auto":
            async for step in treadle.git.auto_pull_request(
                session_id=options.session,
                base=options.base,
                title=options.title,
                body=options.body,
                keep_branch=options.keep_branch,
            ):
                _tell(step, as_json=options.json)
        elif options.action == "create":
            made = await treadle.git.create_pull_request(
                session_id=options.session, title=options.title, body=options.body, base=options.base, draft=options.draft
            )
            _show(made, as_json=options.json)
        elif options.action == "show":
            _show(await _newest(treadle, options), as_json=options.json)
        else:
            await _merge(treadle, options)


async def _newest(treadle: AsyncTreadle, options: argparse.Namespace) -> PullRequest:
    session = await treadle.get_session(options.session)
    if session.branch:
        async for each in treadle.git.pull_requests(session_id=options.session, head=session.branch, base=options.base, page_size=1):
            return await treadle.git.pull_request(each.number, session_id=options.session)
    make = typed(f"pr create {options.session}", chosen_data_dir(options.data_dir))
    raise CommandFailed(f"the session's branch has no pull request; to make one: {make}", ExitCode.REFUSED)


async def _merge(treadle: AsyncTreadle, options: argparse.Namespace) -> None:
    found = await _newest(treadle, options)
    method = pb.MERGE_METHOD_SQUASH if options.squash else pb.MERGE_METHOD_MERGE
    # Only what was looked at.
    commit = await treadle.git.merge_pull_request(found.number, session_id=options.session, method=method, head_commit=found.head_commit)
    _tell(pb.AutoPullRequestResponse(merged=pb.PullRequestMerged(commit=commit)), as_json=options.json)


def _show(pull_request: PullRequest, *, as_json: bool) -> None:
    if as_json:
        print(MessageToJson(pull_request, indent=None))
        return
    state = pb.PullRequestState.Name(pull_request.state).removeprefix("PULL_REQUEST_STATE_").lower()
    conflicts = pull_request.HasField("mergeable") and not pull_request.mergeable and state == "open"
    screen = Screen()
    screen.parts(
        (f"#{pull_request.number}", "bold"),
        (f"  {state}{', with conflicts' if conflicts else ''}  ", "yellow" if conflicts else "green"),
        (pull_request.url, ""),
        hang=2,
    )
    screen.prose(pull_request.title, indent=2)
    screen.prose(f"{pull_request.head} into {pull_request.base}", "dim", indent=2)


def _tell(step: AutoPullRequestResponse, *, as_json: bool) -> None:
    if as_json:
        print(MessageToJson(step, indent=None), flush=True)
        return
    screen = Screen()
    match step.WhichOneof("step"):
        case "ready":
            screen.prose(f"{'opened' if step.ready.created else 'found'} {step.ready.pull_request.url}")
        case "base_merged":
            screen.prose(
                f"merged the base into the branch: {step.base_merged.commit[:12]}" if step.base_merged.commit else "the base is in it"
            )
        case "checking":
            screen.prose(f"the host finds out whether it can be merged ({step.checking.seconds} s)", "dim")
        case "merged":
            screen.prose(f"merged: {step.merged.commit[:12]}" if step.merged.commit else "somebody has merged it already")
        case "branch_removed":
            removed = step.branch_removed
            screen.prose("the branch is deleted" if removed.deleted else f"the branch stays: {removed.reason or 'it was gone'}")
