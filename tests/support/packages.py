"""A package index for pip and a registry for npm, as pages of a web server of the tests'. Each has one package, `parcel`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import tarfile
import zipfile

from support.egress import Answer

Pages = dict[str, tuple[str, bytes]]
"""Path → (media type, content)."""


def index() -> Pages:
    """What pip asks for below `/simple`; the package's module says "it came through" when it is imported."""
    name, packed = _wheel("parcel", "it came through")
    page = f'<a href="/files/{name}">{name}</a>'.encode()
    return {"/simple/parcel/": ("text/html", page), f"/files/{name}": ("application/octet-stream", packed)}


def registry(url: str) -> tuple[Pages, dict[str, str]]:
    """(what `npm ci` asks the registry at `url` for, the files of a project that needs it)."""
    packed = _npm_package("parcel", "it came through npm")
    digest = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
    package = {"name": "app", "version": "1.0.0", "dependencies": {"parcel": "1.0.0"}}
    lock = {
        "name": "app",
        "version": "1.0.0",
        "lockfileVersion": 3,
        "packages": {"": package, "node_modules/parcel": {"version": "1.0.0", "resolved": f"{url}/parcel.tgz", "integrity": digest}},
    }
    files = {"package.json": json.dumps(package), "package-lock.json": json.dumps(lock)}
    return {"/parcel.tgz": ("application/gzip", packed)}, files


def site(pages: Pages) -> Answer:
    """A web server; one request per connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            found = pages.get(head.split(" ")[1].partition("?")[0])
            kind, content = found or ("text/plain", b"there is no such page")
            status = "200 OK" if found else "404 Not Found"
            writer.write(
                f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n".encode()
            )
            writer.write(content)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return answer


def _wheel(name: str, text: str) -> tuple[str, bytes]:
    """(file name, a package that prints)."""
    packed = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}.py", f"print({text!r})\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return f"{name}-1.0-py3-none-any.whl", packed.getvalue()


def _npm_package(name: str, text: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, content in {
            "package/package.json": json.dumps({"name": name, "version": "1.0.0", "main": "index.js"}),
            "package/index.js": f"console.log({text!r})",
        }.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()
