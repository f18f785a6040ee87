"""What TLS has to do with a server that cannot be reached. gRPC's words hardly tell, so it is tried once more, by hand."""

from __future__ import annotations

import socket
import ssl

from treadle_client.target import parse_address

_SECONDS = 2.0
_ISSUER_UNKNOWN = frozenset({18, 19, 20, 21})
"""X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT and its neighbours (OpenSSL, x509_vfy.h): more trust would help."""


def tls_problem(address: str, ca_file: str | None) -> str:
    """Lines for a person; empty when TLS is not the trouble."""
    host_and_port, tls = parse_address(address)
    host, _, port = host_and_port.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if not tls:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port)), timeout=_SECONDS) as line, context.wrap_socket(line, server_hostname=host):
            return "" if tls else f"it speaks TLS: name it as https://{host_and_port}"
    except ssl.SSLCertVerificationError as error:
        return "\n  ".join([f"its certificate is not accepted: {error.verify_message}", *_trust(error.verify_code, ca_file)])
    except ssl.SSLError as error:
        return f"no TLS comes about with it ({error.reason}); a server in plain text is named without https://" if tls else ""
    except OSError:
        return ""


def _trust(code: int, ca_file: str | None) -> list[str]:
    if code not in _ISSUER_UNKNOWN:
        return []
    if ca_file:
        return [f"{ca_file} holds neither it nor its CA's"]
    return ["--ca-file FILE or TREADLE_CA_FILE names certificates to trust: its own, or its CA's"]
