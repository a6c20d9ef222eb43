"""Varnish, which caches in memory."""

import re
import subprocess

from .server import Server

PROGRAM = "varnishd"

CONFIGURATION = """
vcl 4.1;
backend registry {{ .host = "127.0.0.1"; .port = "{upstream_port}"; }}
"""


class Varnish(Server):
    """Varnish with its built-in rules."""

    title = "varnish"
    forgets_at_end = True
    setup = "`-s malloc,3G`, built-in VCL, lifetime of one hour; its log is in shared memory, never written out"

    def command(self, port: int, upstream_port: int, tls: bool) -> list[str]:
        if tls:
            raise NotImplementedError("varnish has no TLS")
        file = self.directory / "registry.vcl"
        file.write_text(CONFIGURATION.format(upstream_port=upstream_port))
        return [PROGRAM, "-F", "-j", "none", "-n", str(self.directory / "work"), "-f", str(file),
                "-a", f"127.0.0.1:{port}", "-s", "malloc,3G", "-p", "default_ttl=3600"]

    def version(self) -> str:
        text = subprocess.run([PROGRAM, "-V"], capture_output=True, text=True, check=True).stderr
        return re.search(r"varnish-([0-9.]+)", text).group(1)
