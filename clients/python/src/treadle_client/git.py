"""Code hosts: `treadle.git`, of the blocking client. Each call names a repository by its URL, or by a session."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.git.v1 import git_service_pb2 as pb
from treadle.git.v1.git_service_pb2_grpc import GitServiceStub
from treadle_client.link import Link


class Git:
    """Branches, files and pull requests, by your own credential for the host (`treadle.credentials`).

    Errors of every call: InvalidField, RepositoryNotAllowed, SessionNotFound, RemoteNotFound, CredentialMissing, CredentialRejected,
    CodeHostForbidden, CodeHostLimited, CodeHostRefused, CodeHostUnavailable, UnsupportedByHost.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stub = link.service(GitServiceStub)

    def repositories(self, host: str = "", *, page_size: int = 0) -> Iterator[pb.Repository]:
        """What you can see on a host (default: github.com), most recently changed first; asked for in pages as they are needed."""
        request = pb.ListRepositoriesRequest(host=host, page_size=page_size)
        while True:
            page = self._link.ask(self._stub.ListRepositories, request, again=True)
            yield from page.repositories
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def branches(self, repository: str = "", *, session_id: str = "", page_size: int = 0) -> Iterator[pb.Branch]:
        """By name; asked for in pages as they are needed."""
        request = pb.ListBranchesRequest(repository_url=repository, session_id=session_id, page_size=page_size)
        while True:
            page = self._link.ask(self._stub.ListBranches, request, again=True)
            yield from page.branches
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def create_branch(self, branch: str, repository: str = "", *, session_id: str = "", base: str = "") -> pb.Branch:
        """Where `base` is, or the default branch. Errors: BranchExists."""
        request = pb.CreateBranchRequest(repository_url=repository, session_id=session_id, branch=branch, base=base)
        return self._link.ask(self._stub.CreateBranch, request, again=False).branch

    def delete_branch(self, branch: str, repository: str = "", *, session_id: str = "") -> bool:
        """False when there was none."""
        request = pb.DeleteBranchRequest(repository_url=repository, session_id=session_id, branch=branch)
        return self._link.ask(self._stub.DeleteBranch, request, again=False).deleted

    def contents(self, path: str, repository: str = "", *, session_id: str = "", ref: str = "") -> pb.GetContentsResponse:
        """A file of at most 1 MiB, or what a directory holds. Errors: ContentTooLarge."""
        request = pb.GetContentsRequest(repository_url=repository, session_id=session_id, path=path, ref=ref)
        return self._link.ask(self._stub.GetContents, request, again=True)

    def tree(self, repository: str = "", *, session_id: str = "", ref: str = "") -> pb.GetTreeResponse:
        """All paths of a commit."""
        request = pb.GetTreeRequest(repository_url=repository, session_id=session_id, ref=ref)
        return self._link.ask(self._stub.GetTree, request, again=True)

    def put_contents(
        self, path: str, data: bytes, repository: str = "", *, session_id: str = "", branch: str = "", sha: str = "", message: str = ""
    ) -> pb.PutContentsResponse:
        """Write a file, as a commit, in place of the one with the id `sha` ("": of none). Errors: ContentChanged."""
        request = pb.PutContentsRequest(
            repository_url=repository, session_id=session_id, path=path, branch=branch, message=message, sha=sha, data=data
        )
        return self._link.ask(self._stub.PutContents, request, again=False)

    def delete_contents(
        self, path: str, sha: str, repository: str = "", *, session_id: str = "", branch: str = "", message: str = ""
    ) -> str:
        """Remove the file with the id `sha`; the commit. Errors: ContentChanged."""
        request = pb.DeleteContentsRequest(
            repository_url=repository, session_id=session_id, path=path, branch=branch, message=message, sha=sha
        )
        return self._link.ask(self._stub.DeleteContents, request, again=False).commit

    def pull_requests(
        self,
        repository: str = "",
        *,
        session_id: str = "",
        head: str = "",
        base: str = "",
        state: pb.PullRequestState = pb.PULL_REQUEST_STATE_UNSPECIFIED,
        page_size: int = 0,
    ) -> Iterator[pb.PullRequest]:
        """Newest first, of the session's branch or all; asked for in pages as they are needed."""
        request = pb.ListPullRequestsRequest(
            repository_url=repository, session_id=session_id, head=head, base=base, state=state, page_size=page_size
        )
        while True:
            page = self._link.ask(self._stub.ListPullRequests, request, again=True)
            yield from page.pull_requests
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def pull_request(self, number: int, repository: str = "", *, session_id: str = "") -> pb.PullRequest:
        """One, with whether it can be merged, as far as the host knows."""
        request = pb.GetPullRequestRequest(repository_url=repository, session_id=session_id, number=number)
        return self._link.ask(self._stub.GetPullRequest, request, again=True).pull_request

    def create_pull_request(
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
        return self._link.ask(self._stub.CreatePullRequest, request, again=False).pull_request

    def update_pull_request(
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
        return self._link.ask(self._stub.UpdatePullRequest, request, again=False).pull_request

    def merge_pull_request(
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
        return self._link.ask(self._stub.MergePullRequest, request, again=False).commit

    def merge_base(self, repository: str = "", *, session_id: str = "", head: str = "", base: str = "") -> str:
        """Merge the base into a branch; the commit, or "" when there was nothing to merge. Errors: MergeConflict, TurnActive."""
        request = pb.MergeBaseRequest(repository_url=repository, session_id=session_id, head=head, base=base)
        return self._link.ask(self._stub.MergeBase, request, again=False).commit

    def generate_pull_request_content(
        self, repository: str = "", *, session_id: str = "", head: str = "", base: str = "", request: str = ""
    ) -> pb.GeneratePullRequestContentResponse:
        """A title and a body, by rules, of what the branches differ in."""
        asked = pb.GeneratePullRequestContentRequest(
            repository_url=repository, session_id=session_id, head=head, base=base, request=request
        )
        return self._link.ask(self._stub.GeneratePullRequestContent, asked, again=True)

    def auto_pull_request(
        self,
        repository: str = "",
        *,
        session_id: str = "",
        head: str = "",
        base: str = "",
        title: str = "",
        body: str = "",
        keep_branch: bool = False,
    ) -> Iterator[pb.AutoPullRequestResponse]:
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
        yield from self._link.stream(self._stub.AutoPullRequest, request)
