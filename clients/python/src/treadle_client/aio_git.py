"""Code hosts: `treadle.git`, of the async client. Each call names a repository by its URL, or by a session."""

from __future__ import annotations

from collections.abc import AsyncIterator

from treadle.git.v1 import git_service_pb2 as pb
from treadle.git.v1.git_service_pb2_grpc import GitServiceStub
from treadle_client.aio_link import AsyncLink


class AsyncGit:
    """Branches, files and pull requests, by your own credential for the host (`treadle.credentials`).

    Errors of every call: InvalidField, RepositoryNotAllowed, SessionNotFound, RemoteNotFound, CredentialMissing, CredentialRejected,
    CodeHostForbidden, CodeHostLimited, CodeHostRefused, CodeHostUnavailable, UnsupportedByHost.
    """

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self._stub = link.service(GitServiceStub)

    async def repositories(self, host: str = "", *, page_size: int = 0) -> AsyncIterator[pb.Repository]:
        """What you can see on a host (default: github.com), most recently changed first; asked for in pages as they are needed."""
        request = pb.ListRepositoriesRequest(host=host, page_size=page_size)
        while True:
            page = await self._link.ask(self._stub.ListRepositories, request, again=True)
            for repository in page.repositories:
                yield repository
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def branches(self, repository: str = "", *, session_id: str = "", page_size: int = 0) -> AsyncIterator[pb.Branch]:
        """By name; asked for in pages as they are needed."""
        request = pb.ListBranchesRequest(repository_url=repository, session_id=session_id, page_size=page_size)
        while True:
            page = await self._link.ask(self._stub.ListBranches, request, again=True)
            for branch in page.branches:
                yield branch
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def create_branch(self, branch: str, repository: str = "", *, session_id: str = "", base: str = "") -> pb.Branch:
        """Where `base` is, or the default branch. Errors: BranchExists."""
        request = pb.CreateBranchRequest(repository_url=repository, session_id=session_id, branch=branch, base=base)
        return (await self._link.ask(self._stub.CreateBranch, request, again=False)).branch

    async def delete_branch(self, branch: str, repository: str = "", *, session_id: str = "") -> bool:
        """False when there was none."""
        request = pb.DeleteBranchRequest(repository_url=repository, session_id=session_id, branch=branch)
        return (await self._link.ask(self._stub.DeleteBranch, request, again=False)).deleted

    async def contents(self, path: str, repository: str = "", *, session_id: str = "", ref: str = "") -> pb.GetContentsResponse:
        """A file of at most 1 MiB, or what a directory holds. Errors: ContentTooLarge."""
        request = pb.GetContentsRequest(repository_url=repository, session_id=session_id, path=path, ref=ref)
        return await self._link.ask(self._stub.GetContents, request, again=True)

    async def tree(self, repository: str = "", *, session_id: str = "", ref: str = "") -> pb.GetTreeResponse:
        """All paths of a commit."""
        request = pb.GetTreeRequest(repository_url=repository, session_id=session_id, ref=ref)
        return await self._link.ask(self._stub.GetTree, request, again=True)

    async def put_contents(
        self, path: str, data: bytes, repository: str = "", *, session_id: str = "", branch: str = "", sha: str = "", message: str = ""
    ) -> pb.PutContentsResponse:
        """Write a file, as a commit, in place of the one with the id `sha` ("": of none). Errors: ContentChanged."""
        request = pb.PutContentsRequest(
            repository_url=repository, session_id=session_id, path=path, branch=branch, message=message, sha=sha, data=data
        )
        return await self._link.ask(self._stub.PutContents, request, again=False)

    async def delete_contents(
        self, path: str, sha: str, repository: str = "", *, session_id: str = "", branch: str = "", message: str = ""
    ) -> str:
        """Remove the file with the id `sha`; the commit. Errors: ContentChanged."""
        request = pb.DeleteContentsRequest(
            repository_url=repository, session_id=session_id, path=path, branch=branch, message=message, sha=sha
        )
        return (await self._link.ask(self._stub.DeleteContents, request, again=False)).commit

    async def pull_requests(
        self,
        repository: str = "",
        *,
        session_id: str = "",
        head: str = "",
        base: str = "",
        state: pb.PullRequestState = pb.PULL_REQUEST_STATE_UNSPECIFIED,
        page_size: int = 0,
    ) -> AsyncIterator[pb.PullRequest]:
        """Newest first, of the session's branch or all; asked for in pages as they are needed."""
        request = pb.ListPullRequestsRequest(
            repository_url=repository, session_id=session_id, head=head, base=base, state=state, page_size=page_size
        )
        while True:
            page = await self._link.ask(self._stub.ListPullRequests, request, again=True)
            for pull_request in page.pull_requests:
                yield pull_request
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def pull_request(self, number: int, repository: str = "", *, session_id: str = "") -> pb.PullRequest:
        """One, with whether it can be merged, as far as the host knows."""
        request = pb.GetPullRequestRequest(repository_url=repository, session_id=session_id, number=number)
        return (await self._link.ask(self._stub.GetPullRequest, request, again=True)).pull_request

    async def create_pull_request(
        self,
        repository: str = "",
        *,
        session_id: str = "",
        title: str = "",
        body: str = "",
        head: str = "",
        base: str = "",
        draft: bool = False,
    ) -> pb.PullRequest:
        """Open one; without title and body they are made by rules. Errors: PullRequestExists, NoCommits."""
        request = pb.CreatePullRequestRequest(
            repository_url=repository, session_id=session_id, title=title, body=body, head=head, base=base, draft=draft
        )
        return (await self._link.ask(self._stub.CreatePullRequest, request, again=False)).pull_request

    async def update_pull_request(
        self,
        number: int,
        repository: str = "",
        *,
        session_id: str = "",
        title: str | None = None,
        body: str | None = None,
        base: str | None = None,
        state: pb.PullRequestState = pb.PULL_REQUEST_STATE_UNSPECIFIED,
    ) -> pb.PullRequest:
        """Change what is given; `state` OPEN or CLOSED opens or closes it."""
        request = pb.UpdatePullRequestRequest(
            repository_url=repository, session_id=session_id, number=number, title=title, body=body, base=base, state=state
        )
        return (await self._link.ask(self._stub.UpdatePullRequest, request, again=False)).pull_request

    async def merge_pull_request(
        self,
        number: int,
        repository: str = "",
        *,
        session_id: str = "",
        method: pb.MergeMethod = pb.MERGE_METHOD_MERGE,
        commit_title: str = "",
        commit_message: str = "",
        head_commit: str = "",
    ) -> str:
        """The merge's commit. With `head_commit` only if the head is still there. Errors: NotMergeable, MergeConflict."""
        request = pb.MergePullRequestRequest(
            repository_url=repository,
            session_id=session_id,
            number=number,
            method=method,
            commit_title=commit_title,
            commit_message=commit_message,
            head_commit=head_commit,
        )
        return (await self._link.ask(self._stub.MergePullRequest, request, again=False)).commit

    async def merge_base(self, repository: str = "", *, session_id: str = "", head: str = "", base: str = "") -> str:
        """Merge the base into a branch; the commit, or "" when there was nothing to merge. Errors: MergeConflict, TurnActive."""
        request = pb.MergeBaseRequest(repository_url=repository, session_id=session_id, head=head, base=base)
        return (await self._link.ask(self._stub.MergeBase, request, again=False)).commit

    async def generate_pull_request_content(
        self, repository: str = "", *, session_id: str = "", head: str = "", base: str = "", request: str = ""
    ) -> pb.GeneratePullRequestContentResponse:
        """A title and a body, by rules, of what the branches differ in."""
        asked = pb.GeneratePullRequestContentRequest(
            repository_url=repository, session_id=session_id, head=head, base=base, request=request
        )
        return await self._link.ask(self._stub.GeneratePullRequestContent, asked, again=True)

    async def auto_pull_request(
        self,
        repository: str = "",
        *,
        session_id: str = "",
        head: str = "",
        base: str = "",
        title: str = "",
        body: str = "",
        keep_branch: bool = False,
    ) -> AsyncIterator[pb.AutoPullRequestResponse]:
        """From a branch to its merge, step by step as each is taken. A call that was cut goes on where it was when it is made again.

        Errors while iterating: NoCommits, MergeConflict, NotMergeable, MergeabilityUnknown, TurnActive.
        """
        request = pb.AutoPullRequestRequest(
            repository_url=repository,
            session_id=session_id,
            head=head,
            base=base,
            title=title,
            body=body,
            keep_branch=keep_branch,
        )
        async for step in self._link.stream(self._stub.AutoPullRequest, request):
            yield step
