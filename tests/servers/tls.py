"""A Postgres and a Redis that speak nothing but TLS and ask for a client's certificate, and the authority of both."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from service.embedded.programs import Programs, choose_account
from service.parent_death import spawn
from tests.api.serving import free_port
from tests.embedded.processes import wait_until

_REQUEST = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")


class Authority:
    """A certificate authority in a directory: `NAME.crt` and `NAME.key` for each that it has signed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.certificate = folder / f"{name}.crt"
        self._key = folder / f"{name}.key"
        _openssl(
            *_REQUEST, "-x509", "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.certificate
        )

    def sign(self, name: str, *alternatives: str) -> tuple[Path, Path]:
        """Return a new certificate and its key; `alternatives` are subject alternative names, for example DNS:localhost."""
        certificate, key, request = (self.folder / f"{name}.{kind}" for kind in ("crt", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(alternatives)}\n" if alternatives else "")
        _openssl(*_REQUEST, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
            "-days", "2", "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(folder: Path, name: str) -> Authority:
    """Make an authority; skips where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return Authority(folder, name)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def tls_postgres(authority: Authority, certificate: Path, key: Path) -> Iterator[int]:
    """Run Postgres on localhost and yield its port; a role is who its certificate says."""
    folders = [
        folder
        for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        if (folder / "initdb").exists()
    ]
    if not folders:
        pytest.skip("no PostgreSQL with TLS is installed")
    found = Programs(folders[0] / "postgres", folders[0] / "initdb", folders[0] / "postgres")
    with tempfile.TemporaryDirectory(prefix="ladder-tls-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        account = choose_account(folder, found)
        for source, target in ((certificate, "server.crt"), (key, "server.key"), (authority.certificate, "root.crt")):
            shutil.copy(source, folder / target)
            (folder / target).chmod(0o600)
        if account and not account.namespace:
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.uid, account.gid)
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        port = free_port()
        settings = {
            "listen_addresses": "localhost",
            "port": str(port),
            "unix_socket_directories": "",
            "ssl": "on",
            **{option: str(folder / file) for option, file in (
                ("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "root.crt"),
            )},
        }  # fmt: skip
        with (folder / "log").open("ab") as log:
            start = partial(spawn, account=account, env=environment, cwd=folder, output=log)
            command = [str(found.initdb), "-D", "data", "-U", "ladder", "-A", "trust", "-E", "UTF8", "-N", "--locale=C"]
            assert 0 == start(command, death_signal=signal.SIGKILL).wait(), (folder / "log").read_text()
            (folder / "data/pg_hba.conf").write_text("hostssl all all localhost cert\n")
            options = [word for setting, value in settings.items() for word in ("-c", f"{setting}={value}")]
            server = start([str(found.postgres), "-D", "data", *options], death_signal=signal.SIGINT)
        try:
            wait_until(lambda: _answers(port))
            yield port
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


@contextlib.contextmanager
def tls_redis(authority: Authority, certificate: Path, key: Path) -> Iterator[int]:
    """Run Redis on localhost and yield its port; skips where none with TLS is installed."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if (
        program is None
        or "ssl" not in subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    ):
        pytest.skip("no Redis with TLS is installed")
    port = free_port()
    settings = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "save": "",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(authority.certificate),
        "tls-auth-clients": "yes",
    }
    command = [program, *(word for setting, value in settings.items() for word in (f"--{setting}", value))]
    with tempfile.TemporaryDirectory(prefix="ladder-tls-") as folder:
        server = spawn(command, death_signal=signal.SIGKILL, cwd=folder, output=subprocess.DEVNULL)
        try:
            wait_until(lambda: _answers(port))
            yield port
        finally:
            server.kill()
            server.wait()
