"""What the caller has to get into code hosts: `treadle.credentials`, of both clients."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from treadle.account.v1 import credential_service_pb2 as pb
from treadle.account.v1.credential_service_pb2_grpc import CredentialServiceStub
from treadle_client.errors import LoginTooSoon

if TYPE_CHECKING:
    from treadle_client.aio_link import AsyncLink
    from treadle_client.link import Link

Secret = str | pb.GithubOauth | pb.GithubApp


class Credentials:
    """At most one per host; used for repositories on exactly that host."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(self, host: str, secret: Secret, *, username: str = "", version: int = 0) -> pb.Credential:
        """Store it, in place of the one that is there (with `version`, only of that one). `secret`: a token, or what GitHub gave to an
        app. `username`: else `x-access-token`, for GitHub.

        Errors: InvalidField, RequestTooLarge, VersionConflict; of a GithubApp, which is tried first, CredentialRejected.
        """
        request = _put(host, secret, username, version)
        return self._link.ask(self._link.service(CredentialServiceStub).PutCredential, request, again=not version).credential

    def start_login(self, host: str) -> pb.StartLoginResponse:
        """Begin a login at a host that is GitHub: show the user its `verification_url` and `user_code`, then `finish_login`.

        Errors: InvalidField, TooManyLogins, CredentialRejected, CodeHostLimited, CodeHostUnavailable.
        """
        return self._link.ask(self._link.service(CredentialServiceStub).StartLogin, pb.StartLoginRequest(host=host), again=False)

    def finish_login(self, login: pb.StartLoginResponse) -> pb.Credential:
        """Wait until the user has entered the code, and have the credential stored. Errors: LoginExpired, LoginDenied, CodeHostLimited."""
        pause = login.interval_seconds
        while True:
            time.sleep(pause)
            request = pb.FinishLoginRequest(login_id=login.login_id)
            try:
                answer = self._link.ask(self._link.service(CredentialServiceStub).FinishLogin, request, again=True)
            except LoginTooSoon as early:  # the answer before was lost, and the question asked again at once
                pause = int(early.metadata["retry_after_seconds"])
                continue
            if answer.HasField("credential"):
                return answer.credential
            pause = answer.interval_seconds or pause

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

    async def put(self, host: str, secret: Secret, *, username: str = "", version: int = 0) -> pb.Credential:
        """Store it, in place of the one that is there (with `version`, only of that one). `secret`: a token, or what GitHub gave to an
        app. `username`: else `x-access-token`, for GitHub.

        Errors: InvalidField, RequestTooLarge, VersionConflict; of a GithubApp, which is tried first, CredentialRejected.
        """
        request = _put(host, secret, username, version)
        answer = await self._link.ask(self._link.service(CredentialServiceStub).PutCredential, request, again=not version)
        return answer.credential

    async def start_login(self, host: str) -> pb.StartLoginResponse:
        """Begin a login at a host that is GitHub: show the user its `verification_url` and `user_code`, then `finish_login`.

        Errors: InvalidField, TooManyLogins, CredentialRejected, CodeHostLimited, CodeHostUnavailable.
        """
        return await self._link.ask(self._link.service(CredentialServiceStub).StartLogin, pb.StartLoginRequest(host=host), again=False)

    async def finish_login(self, login: pb.StartLoginResponse) -> pb.Credential:
        """Wait until the user has entered the code, and have the credential stored. Errors: LoginExpired, LoginDenied, CodeHostLimited."""
        pause = login.interval_seconds
        while True:
            await asyncio.sleep(pause)
            request = pb.FinishLoginRequest(login_id=login.login_id)
            try:
                answer = await self._link.ask(self._link.service(CredentialServiceStub).FinishLogin, request, again=True)
            except LoginTooSoon as early:  # the answer before was lost, and the question asked again at once
                pause = int(early.metadata["retry_after_seconds"])
                continue
            if answer.HasField("credential"):
                return answer.credential
            pause = answer.interval_seconds or pause

    async def list(self) -> list[pb.Credential]:
        """All of the caller's, by host, without their secrets."""
        stub = self._link.service(CredentialServiceStub)
        return [*(await self._link.ask(stub.ListCredentials, pb.ListCredentialsRequest(), again=True)).credentials]

    async def delete(self, credential_id: str) -> None:
        """Errors: CredentialNotFound."""
        request = pb.DeleteCredentialRequest(credential_id=credential_id)
        await self._link.ask(self._link.service(CredentialServiceStub).DeleteCredential, request, again=False)


def _put(host: str, secret: Secret, username: str, version: int) -> pb.PutCredentialRequest:
    request = pb.PutCredentialRequest(host=host, username=username, version=version)
    if isinstance(secret, str):
        request.token = secret
    elif isinstance(secret, pb.GithubOauth):
        request.github_oauth.CopyFrom(secret)
    else:
        request.github_app.CopyFrom(secret)
    return request
