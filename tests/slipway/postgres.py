"""A real PostgreSQL on loopback, run by an unprivileged user, with a role whose password has special characters."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from slipway.integrations.ports import free_port
from tests.slipway.tools import require

STARTS_WITHIN = 60
READER = "reader"
SECRET = "p@ss:w/ rd#%'\\é?&=x"
"""Its characters have a meaning in addresses, in SQL, in shells or in Python."""


@dataclass(frozen=True)
class Postgres:
    """A server with the database `sales`. The role `reader` may only read, and needs its password."""

    port: int
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        """The address in params.yaml."""
        return f"postgresql+psycopg://127.0.0.1:{self.port}/sales"

    @property
    def environ(self) -> dict[str, str]:
        return {"SLIPWAY_SOURCE_USER": READER, "SLIPWAY_SOURCE_PASSWORD": SECRET}

    def run(self, statement: str, rows: Sequence[Sequence[Any]] = (), database: str = "sales") -> None:
        """Run a statement as the owner, once or for each row."""
        with self._connected(database) as connection:
            if rows:
                connection.cursor().executemany(statement, rows)
            else:
                connection.execute(statement)

    def _connected(self, database: str) -> "psycopg.Connection[Any]":
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="owner", password="owner", dbname=database, autocommit=True
        )


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a server. PostgreSQL refuses to run as root, so root runs it as the user `nobody`."""
    require("initdb", "postgres")
    # The links to them may be in a folder that only root may read.
    initdb, postgres = (str(Path(shutil.which(name) or name).resolve()) for name in ("initdb", "postgres"))
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
    identity: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    (folder / "password").write_text("owner")
    if user:
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
    try:
        subprocess.run(
            [
                *(initdb, "--username=owner", f"--pwfile={folder / 'password'}", f"--pgdata={folder / 'data'}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **identity,
        )
        port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off"}
        settings |= {"log_statement": "all", "timezone": "UTC"}
        command = [postgres, "-D", str(folder / "data"), *(f"--{name}={value}" for name, value in settings.items())]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **identity)
        try:
            yield _ready(Postgres(port, folder / "log", process))
        finally:
            process.terminate()
            process.wait(timeout=30)
    finally:
        shutil.rmtree(folder)


def _ready(server: Postgres) -> Postgres:
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            server.run("CREATE DATABASE sales", database="postgres")
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise RuntimeError(server.log.read_text()[-2000:]) from error
            time.sleep(0.1)
        else:
            break
    password = SECRET.replace("'", "''")
    server.run(f"CREATE ROLE {READER} LOGIN PASSWORD '{password}'")
    server.run(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {READER}")
    return server
