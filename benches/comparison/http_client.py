"""Small questions to servers: is it ready, is what it serves right."""

import hashlib
import http.client
import ssl

from .content import MANIFEST_TYPE, MIB, Item

PATIENCE_SECONDS = 60


class WrongAnswer(Exception):
    """A server does not serve what it should."""


def connect(port: int, tls: bool) -> http.client.HTTPConnection:
    """A connection to a server on this machine."""
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS, context=context)


def is_answered(port: int, path: str, tls: bool = False) -> bool:
    """Whether a path is answered with 200 by now."""
    connection = connect(port, tls)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def require_content(port: int, item: Item, tls: bool = False) -> None:
    """Fetches an item and compares its digest."""
    connection = connect(port, tls)
    try:
        connection.request("GET", item.path, headers={"Accept": MANIFEST_TYPE})
        answer = connection.getresponse()
        hasher = hashlib.sha256()
        while part := answer.read(MIB):
            hasher.update(part)
        if answer.status != 200 or "sha256:" + hasher.hexdigest() != item.digest:
            raise WrongAnswer(f"{item.path}: status {answer.status}, digest sha256:{hasher.hexdigest()}")
    finally:
        connection.close()
