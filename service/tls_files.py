"""
Whether the certificates and keys that the URL of a store names can be read, checked at start.

A driver finds out only when it connects, and its error then looks like that of a server that is away. Without the file of
authorities libpq may even connect and verify nothing.
"""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_POSTGRES_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")
_REDIS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_DIRECTORIES = ("sslcrldir", "ssl_ca_path")
_VERIFIES = ("verify-ca", "verify-full")
_SYSTEM = "system"
"""What `sslrootcert` says for the authorities of the operating system."""


def check_postgres(parameters: Mapping[str, str]) -> None:
    """Check the files of a connection of libpq; raises ValueError with a sentence that names the file."""
    named = {name: parameters[name] for name in _POSTGRES_FILES if parameters.get(name)}
    if parameters.get("sslmode") in _VERIFIES:
        named.setdefault("sslrootcert", _default("PGSSLROOTCERT", "root.crt"))
    if named.get("sslrootcert") == _SYSTEM:
        del named["sslrootcert"]
    if "sslcert" in named:
        named.setdefault("sslkey", _default("PGSSLKEY", "postgresql.key"))
    # A value with a colon names a key in a hardware module, not a file.
    if ":" in named.get("sslkey", ""):
        del named["sslkey"]
    _check_files(named)
    if (key := named.get("sslkey")) is not None:
        _check_key_is_private(key)
    if (passwords := named.get("passfile")) is not None and not _is_private_file(passwords):
        # libpq would warn at each connection, and take no password from it.
        message = f"must name a file that others cannot read for passfile: set {passwords} to mode 0600"
        raise ValueError(message)
    _check_certificates("sslrootcert", named.get("sslrootcert"))
    _check_pair("sslcert", named.get("sslcert"), "sslkey", named.get("sslkey"), parameters.get("sslpassword"))


def check_redis(parameters: Mapping[str, str]) -> None:
    """Check the files of a connection of redis-py; raises ValueError with a sentence that names the file."""
    named = {name: parameters[name] for name in _REDIS_FILES if parameters.get(name)}
    _check_files(named)
    certificate, key = named.get("ssl_certfile"), named.get("ssl_keyfile")
    if (certificate is None) != (key is None):
        message = "must have both ssl_certfile and ssl_keyfile, or neither"
        raise ValueError(message)
    _check_certificates("ssl_ca_certs", named.get("ssl_ca_certs"))
    _check_pair("ssl_certfile", certificate, "ssl_keyfile", key, parameters.get("ssl_password"))


def _default(variable: str, file: str) -> str:
    """Return where libpq looks for a file that the URL does not name."""
    return os.environ.get(variable) or str(Path("~/.postgresql", file).expanduser())


def _check_files(named: Mapping[str, str]) -> None:
    for name, file in named.items():
        try:
            status = Path(file).stat()
            # To open a pipe would wait for a writer, and what it gives can be read once.
            if name in _DIRECTORIES if stat.S_ISREG(status.st_mode) else not stat.S_ISDIR(status.st_mode):
                message = (
                    f"must name a {'directory' if name in _DIRECTORIES else 'file'} for {name}, which {file} is not"
                )
                raise ValueError(message)
            if stat.S_ISDIR(status.st_mode):
                os.scandir(file).close()
            else:
                Path(file).open("rb").close()
        except OSError as error:
            message = f"must name a file that can be read for {name}, not {file} ({error.strerror})"
            raise ValueError(message) from None


def _is_private_file(file: str) -> bool:
    mode = Path(file).stat().st_mode
    return stat.S_ISREG(mode) and not mode & (stat.S_IRWXG | stat.S_IRWXO)


def _check_key_is_private(file: str) -> None:
    """Check the mode and owner that libpq requires of a client's key."""
    status = Path(file).stat()
    others = stat.S_IRWXO | (stat.S_IWGRP | stat.S_IXGRP if status.st_uid == 0 else stat.S_IRWXG)
    if status.st_mode & others:
        message = (
            f"must name a key that others cannot read for sslkey: set {file} to mode 0600, or 0640 if root owns it"
        )
        raise ValueError(message)


def _check_certificates(name: str, file: str | None) -> None:
    if file is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except (OSError, ValueError):
            message = f"must name a file of certificates in PEM for {name}, which {file} is not"
            raise ValueError(message) from None


def _check_pair(name: str, certificate: str | None, key_name: str, key: str | None, password: str | None) -> None:
    # libpq also takes a key in another encoding than PEM.
    if certificate is None or key is None or b"-----BEGIN" not in Path(key).read_bytes():
        return
    try:
        # With no password at all OpenSSL would ask the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password or "")
    except (OSError, ValueError):
        message = f"must name a certificate in PEM for {name} and its key for {key_name}, which {certificate} and {key} are not"
        raise ValueError(message) from None
