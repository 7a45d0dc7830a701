"""Free ports for programs that are started next."""

import socket
from pathlib import Path

import pytest

from slipway.integrations import ports

RANGE_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_no_client_gets_a_free_port_before_its_program_listens() -> None:
    """Tests that ran at once on a CI machine took the port of a server that restarted."""
    if RANGE_OF_CLIENTS.exists():
        assert ports.RANGE.stop <= int(RANGE_OF_CLIENTS.read_text().split()[0])
    assert ports.free_port() in ports.RANGE


def test_a_port_on_which_a_program_listens_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", ports.free_port())) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "RANGE", range(port, port + 1))
        with pytest.raises(OSError, match=f"No port from {port} to {port} is free"):
            ports.free_port()
