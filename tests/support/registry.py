"""A registry of images on loopback that asks who comes: one small image under every name, which has no program in it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """See above."""

    def __init__(self, user: str) -> None:
        self.shown = base64.b64encode(user.encode()).decode()
        self.handed_out: list[str] = []
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            # No two runs have the same, or the engine would not ask for it.
            tar.addfile(tarfile.TarInfo(f"nothing-{id(self)}-{hashlib.sha256(user.encode()).hexdigest()}"), io.BytesIO())
        packed = gzip.compress(layer.getvalue())
        root = {"type": "layers", "diff_ids": [_digest(layer.getvalue())]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
        kinds = {"application/vnd.docker.container.image.v1+json": config, "application/vnd.docker.image.rootfs.diff.tar.gzip": packed}
        of_config, of_layer = [{"mediaType": kind, "size": len(data), "digest": _digest(data)} for kind, data in kinds.items()]
        self.manifest = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": of_config, "layers": [of_layer]}).encode()
        self.blobs = {_digest(data): data for data in kinds.values()}
        self.address = ""

    @property
    def digest(self) -> str:
        return _digest(self.manifest)

    def login(self, folder: Path) -> None:
        """As `docker login` leaves it."""
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"auths": {self.address: {"auth": self.shown}}}))

    def answer(self, path: str, shown: str) -> tuple[int, str, bytes]:
        if shown != f"Basic {self.shown}":
            return 401, "text/plain", b""
        *_, kind, name = path.split("/")
        if path == "/v2/":
            return 200, "application/json", b"{}"
        if kind == "manifests" and (name == self.digest or ":" not in name) and "replay" in path:
            return 200, _MANIFEST, self.manifest
        if kind == "blobs" and name in self.blobs:
            self.handed_out.append(name)
            return 200, "application/octet-stream", self.blobs[name]
        return 404, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


@contextmanager
def registry(user: str) -> Iterator[Registry]:
    """`user`: name and password, with a colon."""
    made = Registry(user)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            code, kind, data = made.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(code)
            if code == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="registry"')
            self.send_header("Docker-Content-Digest", _digest(data))
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
