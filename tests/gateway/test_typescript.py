"""generated/ts as a frontend takes it: installed by npm, run by Node.js, bundled and type-checked; the program is that of its README."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.browser import ROOT, TOOLS, node
from support.cutting_proxy import cutting_proxy
from support.gateway import Http
from support.git_server import GitServer
from support.requirements import require
from support.treadle import Client, recording

from treadle.session.v1 import session_service_pb2 as pb

PACKAGE = ROOT / "generated" / "ts"
PEERS = [TOOLS / "node_modules" / name for name in ("@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web")]
"""Of the versions that tools/node has locked: nothing is fetched."""
README = (PACKAGE / "README.md").read_text()
PROGRAM = re.findall(r"```js\n(.*?)```", README, re.DOTALL)[0]
ADDRESS, REPOSITORY = "http://127.0.0.1:7430", "http://127.0.0.1:7435/sample.git"


async def run(program: Path, *arguments: object, cwd: Path, **environment: str) -> tuple[str, str]:
    """(output, errors) of a program that Node.js runs, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        node(),
        program,
        *map(str, arguments),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd)} | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (out + err).decode()[-4000:]
    return out.decode(), err.decode()


async def install(folder: Path, *what: object) -> None:
    """`npm install` without a network."""
    npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ("--offline", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    await run(npm, "install", *quiet, *what, cwd=folder)


@pytest.fixture(params=["copied", "linked"], scope="module")
async def frontend(request: pytest.FixtureRequest) -> AsyncIterator[Path]:
    """A package with the README's packages installed, in the two ways that the README names."""
    require((TOOLS / "node_modules").is_dir(), "packages from npm", "tools/setup node")
    with tempfile.TemporaryDirectory(prefix="treadle-frontend-") as directory:
        checkout, folder = Path(directory, "checkout"), Path(directory, "frontend")
        shutil.copytree(PACKAGE, checkout, ignore=shutil.ignore_patterns("node_modules"))
        folder.mkdir()
        (folder / "package.json").write_text(json.dumps({"private": True}))
        await install(folder, "--install-links", *PEERS)
        if request.param == "copied":
            await install(folder, "--install-links", checkout)
        else:
            await install(checkout, "--install-links", "--no-save", PEERS[0])
            await install(folder, checkout)
        assert (folder / "node_modules" / "treadle-protos").is_symlink() == (request.param == "linked")
        (folder / "example.mjs").write_text(PROGRAM)
        yield folder


@pytest.mark.parametrize("how", ["as it stands", "bundled"])
async def test_the_readme_s_program_reads_each_event_once_through_cuts(
    frontend: Path, http: Http, treadle: tuple[object, Client], git_server: GitServer, how: str
) -> None:
    git_server.create("acme/readme", {"r.jsonl": recording(*({"say": f"line {n}"} for n in range(30)))})
    program = frontend / "example.mjs"
    if how == "bundled":
        program = frontend / "bundle.mjs"
        esbuild = TOOLS / "node_modules" / "esbuild" / "bin" / "esbuild"
        await run(esbuild, "example.mjs", "--bundle", "--format=esm", f"--outfile={program}", cwd=frontend)
    limits = iter([2500, 4000])
    async with cutting_proxy(http.address, lambda: next(limits, None)) as proxy:
        wanted = f'{json.dumps(f"{git_server.url}/acme/readme.git")}, provider: "replay", model: "r.jsonl"'
        text = program.read_text()
        assert text.count(ADDRESS) == text.count(json.dumps(REPOSITORY)) == 1
        program.with_stem("run").write_text(text.replace(ADDRESS, f"http://{proxy.address}").replace(json.dumps(REPOSITORY), wanted))
        out, err = await run(program.with_stem("run"), cwd=frontend, TREADLE_API_KEY=treadle[1].key)
        assert proxy.cuts == 2
    _, client = treadle
    (session,) = (await client.call("ListSessions", pb.ListSessionsRequest())).sessions
    log = await client.log(session.session_id)
    assert [int(line.split("n ")[0]) for line in out.splitlines()] == [event.seq for event in log]
    assert all(later - earlier == 1 for earlier, later in pairwise(event.seq for event in log))
    assert err.count("again:") == 2


@pytest.mark.parametrize("resolution", ["nodenext", "bundler"])
async def test_the_readme_s_program_is_typed(frontend: Path, resolution: str) -> None:
    options = {
        "noEmit": True,
        "strict": True,
        "target": "es2022",
        "module": "nodenext" if resolution == "nodenext" else "esnext",
        "moduleResolution": resolution,
        "lib": ["es2022", "dom", "dom.iterable"],
        "types": [],
    }
    (frontend / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["example.mts"]}))
    wrong = "// @ts-expect-error: no request has this field\nvoid treadle.getSession({ nonsense: 1 });\n"
    node_types = "declare const process: { env: Record<string, string | undefined> };\n"
    (frontend / "example.mts").write_text(PROGRAM + wrong + node_types)
    await run(TOOLS / "node_modules" / "typescript" / "bin" / "tsc", "--project", frontend, cwd=frontend)


def test_the_versions_that_are_named_are_those_that_are_tested() -> None:
    tested = json.loads((TOOLS / "package.json").read_text())["devDependencies"]
    peers = json.loads((PACKAGE / "package.json").read_text())["peerDependencies"]
    assert peers == {name: f"^{tested[name]}" for name in ("@bufbuild/protobuf", "@connectrpc/connect")}
    for name in ("@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web"):
        assert f" {name}@^{tested[name]}" in README
    assert f"`@bufbuild/protobuf` {tested['@bufbuild/protobuf']}, `@connectrpc/connect` {tested['@connectrpc/connect']}," in README
