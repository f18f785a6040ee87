"""Archives that a stranger wrote: what SECURITY.md 1b tells, and bombs. Each names the reason for which it must be refused, or none
where it is to be harmless."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Make = Callable[[], bytes]
TARGET = "/tmp/treadle-hostile-archive"
"""What attacks with absolute paths aim at."""


@dataclass(frozen=True)
class Hostile:
    reason: str
    make: Make


CORPUS: dict[str, Hostile] = {}


def hostile(reason: str) -> Callable[[Make], Make]:
    def keep(make: Make) -> Make:
        CORPUS[make.__name__] = Hostile(reason, make)
        return make

    return keep


class _Tar:
    def __init__(self, form: int = tarfile.GNU_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=form)  # noqa: SIM115 - closed by gz()

    def file(self, name: str, content: bytes = b"x", **more: object) -> _Tar:
        return self.add(name, tarfile.REGTYPE, content, **more)

    def add(self, name: str, kind: bytes, content: bytes = b"", **more: object) -> _Tar:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(content)
        for key, value in more.items():
            setattr(info, key, value)
        self._tar.addfile(info, io.BytesIO(content))
        return self

    def link(self, name: str, target: str) -> _Tar:
        return self.add(name, tarfile.SYMTYPE, linkname=target)

    def gz(self) -> bytes:
        self._tar.close()
        return gzip.compress(self._buffer.getvalue(), 1)


def _deflated(pieces: Iterator[bytes]) -> bytes:
    made = zlib.compressobj(9, wbits=31)
    return b"".join([*(made.compress(piece) for piece in pieces), made.flush()])


def _header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """A header that no library would write."""
    info = tarfile.TarInfo("x")
    info.size, info.type = size, kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[0:100] = name.ljust(100, b"\0")[:100]
    return _summed(block)


def _summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


@hostile("BAD_NAME")
def parent() -> bytes:
    return _Tar().file("../escaped").gz()


@hostile("BAD_NAME")
def parent_in_the_middle() -> bytes:
    return _Tar().file("./workspace/demo/../../../escaped").gz()


@hostile("BAD_NAME")
def absolute() -> bytes:
    return _Tar().file(TARGET).gz()


@hostile("BAD_NAME")
def absolute_in_an_extended_header() -> bytes:
    return _Tar(tarfile.PAX_FORMAT).file("./ok", pax_headers={"path": TARGET}).gz()


@hostile("BAD_NAME")
def nul_in_an_extended_header() -> bytes:
    return _Tar(tarfile.PAX_FORMAT).file("./ok", pax_headers={"path": "a\0b"}).gz()


@hostile("BAD_NAME")
def name_longer_than_any_file_may_have() -> bytes:
    return _Tar(tarfile.PAX_FORMAT).file("./" + "n" * 300).gz()


@hostile("BAD_NAME")
def path_longer_than_any() -> bytes:
    return _Tar(tarfile.PAX_FORMAT).file("./" + "/".join(["n" * 200] * 30)).gz()


@hostile("TOO_DEEP")
def deep() -> bytes:
    return _Tar(tarfile.PAX_FORMAT).file("./" + "d/" * 1000 + "f").gz()


@hostile("DUPLICATE")
def link_then_through_it() -> bytes:
    return _Tar().link("./workspace", "/tmp").file("./workspace/treadle-hostile-archive").gz()


@hostile("DUPLICATE")
def through_it_then_link() -> bytes:
    return _Tar().file("./workspace/demo/a").link("./workspace/demo", "/etc").gz()


@hostile("DUPLICATE")
def link_then_file_of_its_name() -> bytes:
    return _Tar().link("./workspace/demo/a", TARGET).file("./workspace/demo/a").gz()


@hostile("DUPLICATE")
def twice() -> bytes:
    return _Tar().file("./workspace/demo/a").file("./workspace/demo/a").gz()


@hostile("DUPLICATE")
def below_a_file() -> bytes:
    return _Tar().file("./workspace/demo").file("./workspace/demo/a").gz()


@hostile("BAD_NAME")
def realpath_chain() -> bytes:
    """CVE-2025-4517: links whose resolved path grows beyond PATH_MAX, behind which `..` is no longer seen."""
    tar, component, path = _Tar(tarfile.PAX_FORMAT), "d" * 247, ""
    for step in "abcdefghijklmnop":
        tar.add(f"{path}{component}", tarfile.DIRTYPE, mode=0o755)
        tar.link(f"{path}{step}", component)
        path = f"{path}{component}/"
    chain = "/".join("abcdefghijklmnop")
    tar.link(f"{chain}/" + "l" * 254, "../" * 16)
    tar.link("escape", f"{chain}/" + "l" * 254 + "/../../tmp")
    return tar.file("escape/treadle-hostile-archive").gz()


@hostile("BAD_KIND")
def hard_link_to_the_host() -> bytes:
    return _Tar().add("./workspace/demo/a", tarfile.LNKTYPE, linkname="/etc/passwd").gz()


@hostile("BAD_KIND")
def hard_link_within() -> bytes:
    return _Tar().file("./a").add("./b", tarfile.LNKTYPE, linkname="./a").gz()


@hostile("BAD_KIND")
def character_device() -> bytes:
    return _Tar().add("./zero", tarfile.CHRTYPE, devmajor=1, devminor=5).gz()


@hostile("BAD_KIND")
def block_device() -> bytes:
    return _Tar().add("./disk", tarfile.BLKTYPE, devmajor=8, devminor=0).gz()


@hostile("BAD_KIND")
def fifo() -> bytes:
    return _Tar().add("./fifo", tarfile.FIFOTYPE).gz()


@hostile("BAD_KIND")
def sparse() -> bytes:
    return gzip.compress(_header(b"./sparse", 0, b"S") + b"\0" * 1024)


@hostile("BAD_KIND")
def sparse_by_extended_header() -> bytes:
    return _Tar(tarfile.PAX_FORMAT).file("./a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.name": TARGET}).gz()


@hostile("BAD_KIND")
def unknown_kind() -> bytes:
    return gzip.compress(_header(b"./a", 0, b"V") + b"\0" * 1024)


@hostile("BAD_HEADER")
def huge_extended_header() -> bytes:
    return gzip.compress(_header(b"x", 1 << 30, b"x") + b"1" * 4096)


@hostile("BAD_HEADER")
def huge_long_name() -> bytes:
    return gzip.compress(_header(b"././@LongLink", 100_000, b"L") + _padded(b"n" * 100_000))


@hostile("BAD_HEADER")
def header_for_all_members() -> bytes:
    record = b"%d path=%s\n" % (len(TARGET) + 9, TARGET.encode())
    return gzip.compress(_header(b"g", len(record), b"g") + _padded(record) + _header(b"./a", 0) + b"\0" * 1024)


@hostile("BAD_HEADER")
def record_that_lies_about_its_length() -> bytes:
    return gzip.compress(_header(b"x", 12, b"x") + _padded(b"9999 path=a\n") + _header(b"./a", 0) + b"\0" * 1024)


@hostile("BAD_HEADER")
def chain_of_extended_headers() -> bytes:
    record = b"13 path=./aa\n"
    return gzip.compress((_header(b"x", len(record), b"x") + _padded(record)) * 5000 + _header(b"./a", 0) + b"\0" * 1024)


@hostile("BAD_HEADER")
def negative_size_by_extended_header() -> bytes:
    return gzip.compress(_header(b"x", 11, b"x") + _padded(b"11 size=-9\n") + _header(b"./a", 0) + b"\0" * 1024)


@hostile("TOO_LARGE")
def negative_size() -> bytes:
    block = bytearray(_header(b"./a", 0))
    block[124:136] = b"\xff" * 11 + b"\x00"
    return gzip.compress(_summed(block) + b"\0" * 1024)


@hostile("TOO_LARGE")
def file_larger_than_any() -> bytes:
    block = bytearray(_header(b"./a", 0))
    block[124:136] = b"\x80\0\0\0\x7f" + b"\xff" * 7
    return gzip.compress(_summed(block) + b"\0" * 1024)


@hostile("BOMB")
def zeros() -> bytes:
    """A file of 64 MiB in some 64 KiB."""
    return _deflated(iter([_header(b"./zeros", 64 << 20), *[b"\0" * (1 << 20)] * 64, b"\0" * 1024]))


@hostile("BOMB")
def zeros_behind_the_end() -> bytes:
    return _deflated(iter([_header(b"./a", 0), *[b"\0" * (1 << 20)] * 64]))


@hostile("BOMB")
def zeros_in_a_git_directory() -> bytes:
    return _deflated(iter([_header(b"./demo/.git/x", 64 << 20), *[b"\0" * (1 << 20)] * 64, b"\0" * 1024]))


@hostile("BOMB")
def same_member_over_and_over() -> bytes:
    return _deflated(iter([_header(b"./demo/.git/x", 0) * 40_000, b"\0" * 1024]))


@hostile("CORRUPT")
def no_gzip() -> bytes:
    return b"PK\x03\x04 this is a zip, or says so"


@hostile("CORRUPT")
def nothing() -> bytes:
    return b""


@hostile("CORRUPT")
def no_tar() -> bytes:
    return gzip.compress(b"<html>" * 500)


@hostile("CORRUPT")
def cut_off() -> bytes:
    return _Tar().file("./workspace/demo/a", bytes(range(256)) * 4096).gz()[:-3000]


@hostile("CORRUPT")
def cut_off_in_its_last_bytes() -> bytes:
    return _Tar().file("./a").gz()[:-4]


@hostile("CORRUPT")
def wrong_checksum() -> bytes:
    made = bytearray(_Tar().file("./a", bytes(range(256)) * 16).gz())
    made[-8] ^= 0xFF
    return bytes(made)


@hostile("CORRUPT")
def size_that_is_not_there() -> bytes:
    return gzip.compress(_header(b"./a", 1 << 20) + b"only this")


@hostile("")
def setuid_and_foreign_owner() -> bytes:
    return _Tar().file("./workspace/a", mode=0o6777, uid=0, gid=0).gz()


@hostile("")
def links_out_of_the_tree() -> bytes:
    return _Tar().link("./workspace/a", "/etc/shadow").link("./workspace/b", "../../../../etc/shadow").gz()


@hostile("")
def odd_names() -> bytes:
    tar = _Tar()
    for name in ("-rf", "a\nb", "\\..\\x", "\udcff\udcfe", "con", ".GIT/config", "git~1/config", ".git "):
        tar.file(f"./workspace/{name}")
    return tar.gz()


@hostile("")
def metadata_that_is_none() -> bytes:
    return _Tar().file("./.session-metadata.json", b"[" * 60_000).file("./workspace/demo/a").gz()


@hostile("")
def cloned_path_out_of_the_archive() -> bytes:
    said = b'{"sessionId":"x","github":{"clonedPath":"../../../etc","repoUrl":"https://github.com/o/r"}}'
    return _Tar().file("./.session-metadata.json", said).file("./workspace/demo/a").gz()
