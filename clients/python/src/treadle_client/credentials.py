"""What the caller has to get into code hosts: `treadle.credentials`, of both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.account.v1 import credential_service_pb2 as pb
from treadle.account.v1.credential_service_pb2_grpc import CredentialServiceStub

if TYPE_CHECKING:
    from treadle_client.aio_link import AsyncLink
    from treadle_client.link import Link


class Credentials:
    """At most one per host; used for repositories on exactly that host."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(self, host: str, token: str, *, username: str = "", version: int = 0) -> pb.Credential:
        """Store it, in place of the one that is there (with `version`, only of that one). `username`: else `x-access-token`, for GitHub.

        Errors: InvalidField, RequestTooLarge, VersionConflict.
        """
        request = pb.PutCredentialRequest(host=host, token=token, username=username, version=version)
        return self._link.ask(self._link.service(CredentialServiceStub).PutCredential, request, again=not version).credential

    def list(self) -> list[pb.Credential]:
        """All of the caller's, by host, without their secrets."""
        answer = self._link.ask(self._link.service(CredentialServiceStub).ListCredentials, pb.ListCredentialsRequest(), again=True)
        return [*answer.credentials]

    def delete(self, credential_id: str) -> None:
        """Errors: CredentialNotFound."""
        request = pb.DeleteCredentialRequest(credential_id=credential_id)
        self._link.ask(self._link.service(CredentialServiceStub).DeleteCredential, request, again=False)


class AsyncCredentials:
    """At most one per host; used for repositories on exactly that host."""

    def __init__(self, link: AsyncLink) -> None:
        self._link = link

    async def put(self, host: str, token: str, *, username: str = "", version: int = 0) -> pb.Credential:
        """Store it, in place of the one that is there (with `version`, only of that one). `username`: else `x-access-token`, for GitHub.

        Errors: InvalidField, RequestTooLarge, VersionConflict.
        """
        request = pb.PutCredentialRequest(host=host, token=token, username=username, version=version)
        answer = await self._link.ask(self._link.service(CredentialServiceStub).PutCredential, request, again=not version)
        return answer.credential

    async def list(self) -> list[pb.Credential]:
        """All of the caller's, by host, without their secrets."""
        stub = self._link.service(CredentialServiceStub)
        return [*(await self._link.ask(stub.ListCredentials, pb.ListCredentialsRequest(), again=True)).credentials]

    async def delete(self, credential_id: str) -> None:
        """Errors: CredentialNotFound."""
        request = pb.DeleteCredentialRequest(credential_id=credential_id)
        await self._link.ask(self._link.service(CredentialServiceStub).DeleteCredential, request, again=False)
