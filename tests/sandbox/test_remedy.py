"""The remedy fits the cause: bubblewrap's own words, and this kernel's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.sandbox.remedy import INSTALL, remedy

# As bubblewrap 0.8 and 0.11 say it.
EXCEEDED = "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)"
CAPABILITIES = "bwrap: Unexpected capabilities but not setuid, old file caps config?"
CLOSED = "bwrap: No permissions to create new namespace, likely because the kernel does not allow non-privileged user namespaces."
UID_MAP = "bwrap: setting up uid map: Permission denied"


@pytest.mark.parametrize(
    ("breach", "settings", "says"),
    [
        (EXCEEDED, {"user/max_user_namespaces": "0", "user/max_net_namespaces": "9999"}, "sysctl -w user.max_user_namespaces=10000"),
        (EXCEEDED, {"user/max_user_namespaces": "9999"}, "/proc/sys/user/max_*_namespaces"),
        (CAPABILITIES, {}, "setpriv --inh-caps=-all --ambient-caps=-all"),
        (CLOSED, {"kernel/unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
        (UID_MAP, {"kernel/apparmor_restrict_unprivileged_userns": "1"}, "kernel.apparmor_restrict_unprivileged_userns=0"),
        (CLOSED, {"kernel/unprivileged_userns_clone": "1"}, "in a container"),
        ("it cannot be run: no such file", {}, INSTALL),
        ("there is a network inside", {}, "none is known"),
    ],
)
def test_the_remedy_fits(tmp_path: Path, breach: str, settings: dict[str, str], says: str) -> None:
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
    assert says in remedy(breach, tmp_path)
