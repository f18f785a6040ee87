"""Serves a directory of bare repositories over smart HTTP, by way of git's own `git http-backend`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Self
from urllib.parse import urlsplit

import structlog

_ROUTE = re.compile(
    r"/(?P<repository>[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){0,2}\.git)/(?P<service>info/refs|git-(?:upload|receive)-pack)\Z"
)
_QUERY = re.compile(r"(service=git-(upload|receive)-pack)?\Z")
_BODY_BYTES = 1024 * 1024 * 1024
_CHUNK = 64 * 1024
_IDLE_SECONDS = 60

log = structlog.get_logger()


class GitHttpServer:
    """A thread that serves `root`; each request has a thread of its own. Anybody who can connect may fetch and push."""

    def __init__(self, root: Path, *, port: int = 0, host: str = "127.0.0.1") -> None:
        """Nothing is bound before `start`; port 0 picks a free one."""
        self.root = root.resolve()
        self.host = host
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The prefix of every repository's URL; it ends with `/`."""
        if self._server is None:
            raise RuntimeError("the Git server is not started")
        return f"http://{self.host}:{self._server.server_port}/"

    def start(self) -> None:
        """Bind and serve. Errors: OSError when the port is taken."""
        self._server = _Server(self._port, self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="git-http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. Requests that are being answered end with their backends."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.end_backends()
            self._server.server_close()
            self._server = None

    def refusal(self, target: str, authorization: str | None) -> HTTPStatus | None:
        """With what a request for `target` with this Authorization header is refused; None to serve it. Here: all are served."""
        del target, authorization
        return None

    def before(self, path: str) -> None:
        """Called in the request's thread before it is served."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, owner: GitHttpServer) -> None:
        super().__init__((owner.host, port), _Handler)
        self.owner = owner
        self.names = [[f"{name}:{self.server_port}"] for name in (owner.host, "localhost")]
        self.git = shutil.which("git") or "/usr/bin/git"
        self._backends: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()

    def backend(self, environment: dict[str, str], body: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [self.git, "-c", "core.hooksPath=hooks", "-c", "http.receivepack=true", "http-backend"]
        # A session of its own: Ctrl-C in the terminal must not cut a push off.
        process = subprocess.Popen(
            command, env=environment, stdin=body, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        with self._guard:
            self._backends.add(process)
        return process

    def handle_error(self, request: object, client_address: object) -> None:
        """What goes wrong with one connection is told in the log, not on the terminal. socketserver calls it while it handles the error."""
        del request, client_address
        log.warning("git_http.request_failed", exc_info=True)

    def finished(self, process: subprocess.Popen[bytes]) -> None:
        with self._guard:
            self._backends.discard(process)
        process.kill()
        process.wait()

    def end_backends(self) -> None:
        with self._guard:
            for process in self._backends:
                process.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Say nothing: the server's log is not on this thread's standard error."""

    def _answer(self) -> None:
        self.close_connection = True
        owner = self.server.owner
        parts = urlsplit(self.path)
        owner.before(parts.path)
        route = _ROUTE.match(parts.path)
        if self.headers.get_all("Host", []) not in self.server.names:
            # A name of somebody else that points here: the page behind it may be any that the user's browser shows.
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
        elif refusal := owner.refusal(self.path, self.headers.get("Authorization")):
            self._refuse(refusal)
        elif not route or not _QUERY.match(parts.query) or not self._is_ours(owner.root / route["repository"]):
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            with tempfile.TemporaryFile() as body:
                if self._receive(body):
                    self._run(parts.path, parts.query, body)

    def _is_ours(self, repository: Path) -> bool:
        return repository.resolve().is_relative_to(self.server.owner.root) and (repository / "HEAD").is_file()

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def _receive(self, body: IO[bytes]) -> bool:
        """The whole request first: the backend then never waits for a client that waits for it."""
        left = _BODY_BYTES
        try:
            for chunk in self._chunked() if self.headers.get("Transfer-Encoding") == "chunked" else self._sized():
                left -= len(chunk)
                if left < 0:
                    self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                    return False
                body.write(chunk)
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return False
        body.seek(0)
        return True

    def _sized(self) -> Iterator[bytes]:
        left = _size(self.headers.get("Content-Length") or "0", base=10)
        while left > 0 and (chunk := self.rfile.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk

    def _chunked(self) -> Iterator[bytes]:
        while left := _size(self.rfile.readline(64).split(b";")[0].strip().decode("latin-1"), base=16):
            while left > 0 and (chunk := self.rfile.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk
            self.rfile.readline(8)
        self.rfile.readline(8)

    def _run(self, path: str, query: str, body: IO[bytes]) -> None:
        process = self.server.backend(self._environment(path, query, os.fstat(body.fileno()).st_size), body)
        try:
            assert process.stdout is not None  # noqa: S101 - asked for as a pipe
            self._forward(process.stdout)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client left
        finally:
            self.server.finished(process)
            if process.stdout:
                process.stdout.close()

    def _environment(self, path: str, query: str, length: int) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(self.server.owner.root),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(length),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_USER": "treadle",
        }

    def _forward(self, output: IO[bytes]) -> None:
        status, headers = HTTPStatus.OK.value, []
        while line := output.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value.strip()))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while chunk := output.read(_CHUNK):
            self.wfile.write(chunk)


def _size(text: str, *, base: int) -> int:
    """Digits only: `int` also takes signs, blanks and underscores. Errors: ValueError."""
    if not text.isalnum():
        raise ValueError(f"{text!r} is no size")
    return int(text, base)
