"""Makes all clients agree on one cipher, so that servers are compared and not their preferences."""

import os
import tempfile
from functools import cache
from pathlib import Path

CONFIGURATION = """
openssl_conf = setup
[setup]
ssl_conf = ssl
[ssl]
system_default = client
[client]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
"""


@cache
def configuration() -> tempfile._TemporaryFileWrapper:
    """A file for OpenSSL, which lives as long as the program."""
    file = tempfile.NamedTemporaryFile("w", prefix="tidegate-bench-", suffix=".cnf")
    file.write(CONFIGURATION)
    file.flush()
    return file


def environment_with_one_cipher() -> dict[str, str]:
    """The environment in which OpenSSL's clients offer TLS 1.3 with AES-128-GCM only."""
    return {**os.environ, "OPENSSL_CONF": str(Path(configuration().name))}
