"""Find unused ports of this machine."""

import random
import socket
from contextlib import suppress

# These ports are below the ports that kernels give to clients: from 32768 on Linux, from 49152 elsewhere (RFC 6335,
# section 6).
RANGE = range(20_000, 32_768)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens, for a program that is started next.

    The port is random. The kernel does not give it to clients, so it stays free until the program listens.

    Raises:
        OSError: No port is free.
    """
    generator = random.SystemRandom()
    for port in generator.sample(RANGE, len(RANGE)):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"No port from {RANGE.start} to {RANGE.stop - 1} is free.")
