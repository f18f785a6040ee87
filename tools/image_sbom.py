"""Prints what is in the image that it runs in, as CycloneDX JSON: Debian's packages, Python's, and Claude's program. The Dockerfiles
run it; `tools/sbom` shows what it wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

_FORMAT = "${Package}\\t${Version}\\t${Architecture}\\t${db:Status-Abbrev}\\n"


def main(image: str) -> None:
    """No date and no random number, so that the same content has the same list."""
    system = _system()
    found = {each["bom-ref"]: each for each in (*_debian(system), *_interpreter(), *_python(distributions()), *_claude())}
    components = [found[ref] for ref in sorted(found)]
    subject = {"type": "container", "bom-ref": image, "name": image, "version": version("treadle")}
    about = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": subject, "properties": [{"name": "treadle:system", "value": system["PRETTY_NAME"]}]},
        "components": components,
    }
    json.dump(about, sys.stdout, indent=1)


def _system() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines if "=" in line)}


def _debian(system: dict[str, str]) -> Iterator[dict[str, Any]]:
    told = subprocess.run(["dpkg-query", "--show", f"--showformat={_FORMAT}"], capture_output=True, text=True, check=True).stdout
    for line in told.splitlines():
        name, version_, architecture, status = line.split("\t")
        if status.startswith("ii"):
            purl = (
                f"pkg:deb/{system['ID']}/{quote(name)}@{quote(version_)}?arch={architecture}&distro={system['ID']}-{system['VERSION_ID']}"
            )
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version_, "purl": purl}


def _interpreter() -> Iterator[dict[str, Any]]:
    """A Python that no package of Debian's brought, as official images have it, and what is installed beside it."""
    if Path(sys.base_prefix) == Path("/usr"):
        return
    version_ = ".".join(map(str, sys.version_info[:3]))
    purl = f"pkg:generic/python@{version_}"
    yield {"type": "application", "bom-ref": purl, "name": "python", "version": version_, "purl": purl}
    place = Path(sys.base_prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    yield from _python(distributions(path=[str(place)]))


def _claude() -> Iterator[dict[str, Any]]:
    """The program inside of the Claude Agent SDK."""
    for sdk in distributions(name="claude-agent-sdk"):
        told = re.search(r'"([^"]+)"$', Path(str(sdk.locate_file("claude_agent_sdk/_cli_version.py"))).read_text(), re.MULTILINE)
        if told:
            purl = f"pkg:npm/%40anthropic-ai/claude-code@{quote(told[1])}"
            yield {"type": "application", "bom-ref": purl, "name": "claude-code", "version": told[1], "purl": purl}


def _python(installed: Iterable[Distribution]) -> Iterator[dict[str, Any]]:
    for found in {_name(each): each for each in installed}.values():
        name = _name(found)
        purl = f"pkg:pypi/{name}@{quote(found.version)}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": found.version, "purl": purl} | _licence(found)


def _name(found: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()


def _licence(found: Distribution) -> dict[str, Any]:
    expression = found.metadata.get("License-Expression")
    return {"licenses": [{"expression": expression}]} if expression else {}


if __name__ == "__main__":
    main(*sys.argv[1:])
