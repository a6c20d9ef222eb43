"""nginx: as a static file server, as a proxy cache, and as the upstream of all caches."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import http_client
from ..content import MANIFEST_TYPE, REPOSITORY, Content, Item
from ..processes import Child, Stopped, wait_until
from .server import Server, free_port

PROGRAM = "nginx"

COMMON = """
{user}
worker_processes auto;
worker_rlimit_nofile 16384;
daemon off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 10000000;
    log_format transfer '$request_method $uri $status $body_bytes_sent';
    client_body_temp_path {directory}/temporary/body;
    proxy_temp_path {directory}/temporary/proxy;
    fastcgi_temp_path {directory}/temporary/fastcgi;
    uwsgi_temp_path {directory}/temporary/uwsgi;
    scgi_temp_path {directory}/temporary/scgi;
    {http}
}}
"""

STATIC = """
    server {{
        listen 127.0.0.1:{port}{tls_flags} backlog=4096;
        access_log {directory}/access.log;
        root {root};
        {tls}
        location = /v2/ {{ default_type application/json; return 200 '{{}}'; }}
        location /v2/{repository}/manifests/ {{ default_type {manifest_type}; }}
        location /v2/{repository}/blobs/ {{ default_type application/octet-stream; }}
    }}
"""

TLS = """
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
"""

CACHE = """
    proxy_cache_path {directory}/cache levels=1:2 keys_zone=bench:16m max_size=20g inactive=1d use_temp_path=off;
    upstream registry {{ server 127.0.0.1:{upstream_port}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        access_log {directory}/access.log;
        location / {{
            proxy_pass http://registry;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache bench;
            proxy_cache_valid 200 1h;
            proxy_cache_lock on;
            proxy_cache_lock_age 5m;
            proxy_cache_lock_timeout 5m;
        }}
    }}
"""

UPSTREAM = """
    map $uri $digest {{
        ~(sha256:[0-9a-f]+)$ $1;
        default {tag_digest};
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen 127.0.0.1:{limited_port} backlog=4096;
        access_log {directory}/access.log transfer;
        root {root};
        if ($server_port = {limited_port}) {{ set $limit_rate 32m; }}
        add_header Docker-Distribution-Api-Version registry/2.0;
        location = /v2/ {{ default_type application/json; return 200 '{{}}'; }}
        location /v2/{repository}/manifests/ {{
            default_type {manifest_type};
            add_header Docker-Content-Digest $digest;
        }}
        location /v2/{repository}/blobs/ {{
            default_type application/octet-stream;
            add_header Docker-Content-Digest $digest;
        }}
    }}
"""


class StaticNginx(Server):
    """The measure of all things: the same files, served by sendfile."""

    title = "nginx"
    setup = ("static files, `sendfile on`, `tcp_nopush on`, a worker for each core, access log on (its usual "
             "format, unbuffered, to a file), no `open_file_cache`")

    def command(self, port: int, upstream_port: int, tls: bool) -> list[str]:
        text = STATIC.format(
            port=port, directory=self.directory, root=self.content.root, repository=REPOSITORY,
            manifest_type=MANIFEST_TYPE, tls_flags=" ssl http2" if tls else "",
            tls=TLS.format(certificate=self.certificate.certificate, key=self.certificate.key) if tls else "")
        return command(self.directory, text)

    def version(self) -> str:
        return version()


class CachingNginx(Server):
    """nginx as a proxy cache, one fetch for all who wait (`proxy_cache_lock`)."""

    title = "nginx cache"
    setup = "`proxy_cache` on disk with `proxy_cache_lock`, keep-alive to upstream, otherwise as nginx"

    def command(self, port: int, upstream_port: int, tls: bool) -> list[str]:
        return command(self.directory, CACHE.format(port=port, upstream_port=upstream_port,
                                                    directory=self.directory))

    def version(self) -> str:
        return version()


@dataclass(frozen=True)
class Upstream:
    """A running upstream: static files with a registry's headers."""

    child: Child
    port: int
    # The same at 32 MiB/s for each connection.
    limited_port: int
    log: Path

    def sent_bytes(self, item: Item) -> int:
        """How many bytes of an item were sent. Ends the upstream, so that its log is complete."""
        self.child.stop(signal.SIGQUIT)
        lines = (line.split() for line in self.log.read_text().splitlines())
        return sum(int(sent) for method, path, _, sent in lines if method == "GET" and path == item.path)

    def require_hits(self, server: str, item: Item) -> None:
        """Ends the upstream, and raises where a server fetched an item again that it should have kept."""
        transfers = self.sent_bytes(item) / item.size_bytes
        # docker-registry fetches twice to keep once.
        if transfers > 2:
            raise Stopped(f"{server} was to serve from its cache, but took {transfers:.1f} transfers from upstream")


@contextmanager
def upstream(directory: Path, content: Content) -> Iterator[Upstream]:
    """Runs the registry that the caches fetch from."""
    directory.mkdir(exist_ok=True)
    port, limited_port = free_port(), free_port()
    text = UPSTREAM.format(port=port, limited_port=limited_port, directory=directory, root=content.root,
                           repository=REPOSITORY, manifest_type=MANIFEST_TYPE, tag_digest=content.tag.digest)
    with Child(command(directory, text), directory / "log", directory) as child:
        wait_until("the upstream answers", child, lambda: http_client.is_answered(port, "/v2/"))
        yield Upstream(child, port, limited_port, directory / "access.log")


def command(directory: Path, http: str) -> list[str]:
    """Writes a configuration; the command that serves it."""
    (directory / "temporary").mkdir(exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "access.log").unlink(missing_ok=True)
    file = directory / "nginx.conf"
    file.write_text(COMMON.format(user=user, directory=directory, http=http))
    # Otherwise the program begins with the log file that it was built for.
    return [PROGRAM, "-e", "stderr", "-p", str(directory), "-c", str(file)]


def version() -> str:
    """The program's version."""
    text = subprocess.run([PROGRAM, "-v"], capture_output=True, text=True, check=True).stderr
    return re.search(r"nginx/(\S+)", text).group(1)
