"""treadle.git.v1.GitService: gRPC to use cases, nothing else."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Protocol

from server.api.convert import enum_name, timestamp
from server.api.edge import Context
from server.kernel import code_host
from server.kernel.code_host import Change, MergeMethod, PullRequestState
from server.kernel.hosting import At, BaseMerged, BranchRemoved, Checking, Hosting, Merged, Ready, Step
from server.kernel.identity import Principal
from treadle.git.v1 import git_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GitService"]


class _Addressed(Protocol):
    repository_url: str
    session_id: str


class GitService:
    """See the comments of the proto for what each RPC promises."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    async def list_repositories(self, principal: Principal, request: pb.ListRepositoriesRequest, _: Context) -> pb.ListRepositoriesResponse:
        """What the caller can see."""
        page = await self._hosting.repositories(principal, request.host, page_size=request.page_size, page_token=request.page_token)
        return pb.ListRepositoriesResponse(repositories=map(_repository, page.items), next_page_token=page.next_token)

    async def list_branches(self, principal: Principal, request: pb.ListBranchesRequest, _: Context) -> pb.ListBranchesResponse:
        """By name."""
        page = await self._hosting.branches(principal, _at(request), page_size=request.page_size, page_token=request.page_token)
        return pb.ListBranchesResponse(branches=map(_branch, page.items), next_page_token=page.next_token)

    async def create_branch(self, principal: Principal, request: pb.CreateBranchRequest, _: Context) -> pb.CreateBranchResponse:
        """Make one."""
        made = await self._hosting.create_branch(principal, _at(request), request.branch, base=request.base)
        return pb.CreateBranchResponse(branch=_branch(made))

    async def delete_branch(self, principal: Principal, request: pb.DeleteBranchRequest, _: Context) -> pb.DeleteBranchResponse:
        """Delete one."""
        return pb.DeleteBranchResponse(deleted=await self._hosting.delete_branch(principal, _at(request), request.branch))

    async def get_contents(self, principal: Principal, request: pb.GetContentsRequest, _: Context) -> pb.GetContentsResponse:
        """Read a path."""
        found = await self._hosting.contents(principal, _at(request), request.path, ref=request.ref)
        return pb.GetContentsResponse(entry=_entry(found.entry), data=found.data, entries=map(_entry, found.entries))

    async def get_tree(self, principal: Principal, request: pb.GetTreeRequest, _: Context) -> pb.GetTreeResponse:
        """Read all paths."""
        found = await self._hosting.tree(principal, _at(request), ref=request.ref)
        return pb.GetTreeResponse(sha=found.sha, entries=map(_entry, found.entries), truncated=found.truncated)

    async def put_contents(self, principal: Principal, request: pb.PutContentsRequest, _: Context) -> pb.PutContentsResponse:
        """Write a file."""
        change = Change(request.path, request.branch, request.message, request.sha, request.data)
        made = await self._hosting.change(principal, _at(request), change)
        return pb.PutContentsResponse(commit=made.commit, sha=made.sha)

    async def delete_contents(self, principal: Principal, request: pb.DeleteContentsRequest, _: Context) -> pb.DeleteContentsResponse:
        """Remove a file."""
        change = Change(request.path, request.branch, request.message, request.sha, None)
        return pb.DeleteContentsResponse(commit=(await self._hosting.change(principal, _at(request), change)).commit)

    async def list_pull_requests(
        self, principal: Principal, request: pb.ListPullRequestsRequest, _: Context
    ) -> pb.ListPullRequestsResponse:
        """Newest first."""
        page = await self._hosting.pull_requests(
            principal,
            _at(request),
            head=request.head,
            base=request.base,
            state=_state(request.state),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListPullRequestsResponse(pull_requests=map(_pull_request, page.items), next_page_token=page.next_token)

    async def get_pull_request(self, principal: Principal, request: pb.GetPullRequestRequest, _: Context) -> pb.GetPullRequestResponse:
        """Read one."""
        found = await self._hosting.pull_request(principal, _at(request), request.number)
        return pb.GetPullRequestResponse(pull_request=_pull_request(found))

    async def create_pull_request(
        self, principal: Principal, request: pb.CreatePullRequestRequest, _: Context
    ) -> pb.CreatePullRequestResponse:
        """Open one."""
        made = await self._hosting.create_pull_request(
            principal,
            _at(request),
            title=request.title,
            body=request.body,
            head=request.head,
            base=request.base,
            draft=request.draft,
        )
        return pb.CreatePullRequestResponse(pull_request=_pull_request(made))

    async def update_pull_request(
        self, principal: Principal, request: pb.UpdatePullRequestRequest, _: Context
    ) -> pb.UpdatePullRequestResponse:
        """Change one."""
        state = _state(request.state)
        changed = await self._hosting.update_pull_request(
            principal,
            _at(request),
            request.number,
            title=request.title if request.HasField("title") else None,
            body=request.body if request.HasField("body") else None,
            base=request.base if request.HasField("base") else None,
            open_=None if state is None else state is PullRequestState.OPEN,
        )
        return pb.UpdatePullRequestResponse(pull_request=_pull_request(changed))

    async def merge_pull_request(
        self, principal: Principal, request: pb.MergePullRequestRequest, _: Context
    ) -> pb.MergePullRequestResponse:
        """Merge one."""
        commit = await self._hosting.merge_pull_request(
            principal,
            _at(request),
            request.number,
            method=MergeMethod(enum_name(pb.MergeMethod, request.method, "method", "MERGE_METHOD_") or MergeMethod.MERGE),
            title=request.commit_title,
            message=request.commit_message,
            head_commit=request.head_commit,
        )
        return pb.MergePullRequestResponse(commit=commit)

    async def merge_base(self, principal: Principal, request: pb.MergeBaseRequest, _: Context) -> pb.MergeBaseResponse:
        """Merge the base into a branch."""
        commit = await self._hosting.merge_base(principal, _at(request), head=request.head, base=request.base)
        return pb.MergeBaseResponse(commit=commit)

    async def generate_pull_request_content(
        self, principal: Principal, request: pb.GeneratePullRequestContentRequest, _: Context
    ) -> pb.GeneratePullRequestContentResponse:
        """Make words."""
        made = await self._hosting.generate(principal, _at(request), head=request.head, base=request.base, request=request.request)
        compared = made.compared
        return pb.GeneratePullRequestContentResponse(
            title=made.title,
            body=made.body,
            commits=compared.ahead_by,
            files_changed=sum(map(len, (compared.added, compared.modified, compared.removed, compared.renamed))),
            additions=compared.additions,
            deletions=compared.deletions,
        )

    async def auto_pull_request(self, principal: Principal, request: pb.AutoPullRequestRequest, context: Context) -> None:
        """Bring a branch into its base. The few frames fit into what a client that does not read is sent anyway."""
        steps = self._hosting.auto(
            principal,
            _at(request),
            head=request.head,
            base=request.base,
            title=request.title,
            body=request.body,
            keep_branch=request.keep_branch,
        )
        async with aclosing(steps):
            async for step in steps:
                await context.write(_step(step).SerializeToString())


def _at(request: _Addressed) -> At:
    return At(request.repository_url, request.session_id)


def _state(value: int) -> PullRequestState | None:
    name = enum_name(pb.PullRequestState, value, "state", "PULL_REQUEST_STATE_")
    return PullRequestState(name) if name else None


def _repository(value: code_host.HostRepository) -> pb.Repository:
    return pb.Repository(
        name=value.name,
        url=value.url,
        web_url=value.web_url,
        description=value.description,
        default_branch=value.default_branch,
        private=value.private,
        may_push=value.may_push,
        updated_at=timestamp(value.updated_at),
    )


def _branch(value: code_host.Branch) -> pb.Branch:
    return pb.Branch(name=value.name, commit=value.commit, protected=value.protected)


def _entry(value: code_host.Entry) -> pb.Entry:
    return pb.Entry(path=value.path, kind=f"ENTRY_KIND_{value.kind}", sha=value.sha, size=value.size)


def _pull_request(value: code_host.PullRequest) -> pb.PullRequest:
    shown = pb.PullRequest(
        number=value.number,
        title=value.title,
        body=value.body,
        state=f"PULL_REQUEST_STATE_{value.state}",
        url=value.url,
        head=value.head,
        base=value.base,
        head_commit=value.head_commit,
        draft=value.draft,
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
    )
    if value.mergeable is not None:
        shown.mergeable = value.mergeable
    return shown


def _step(step: Step) -> pb.AutoPullRequestResponse:
    fields: dict[str, Any] = {}
    match step:
        case Ready():
            fields["ready"] = pb.PullRequestReady(pull_request=_pull_request(step.pull_request), created=step.created)
        case BaseMerged():
            fields["base_merged"] = pb.BaseMerged(commit=step.commit)
        case Checking():
            fields["checking"] = pb.Checking(seconds=step.seconds)
        case Merged():
            fields["merged"] = pb.PullRequestMerged(commit=step.commit)
        case BranchRemoved():
            fields["branch_removed"] = pb.BranchRemoved(deleted=step.deleted, reason=step.reason)
    return pb.AutoPullRequestResponse(**fields)
