"""What a Service of Kubernetes does: it passes connections on to replicas that are ready, and knows no requests."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager


class Balancer:
    """`ports` are those of the replicas, which whoever looks after them replaces; each gets connections in turn."""

    def __init__(self) -> None:
        self.ports: tuple[int, ...] = ()
        self._turn = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def balancing(self) -> Generator["Balancer", None, None]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._pass_on, sock=self._socket), loop).result()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Nothing is sent a second time: a replica that does not take a connection is a failure which is seen."""
        ports, self._turn = self.ports, self._turn + 1
        try:
            if ports:
                replica, to = await asyncio.open_connection("127.0.0.1", ports[self._turn % len(ports)])
                await asyncio.gather(_copy(reader, to), _copy(replica, writer))
        except OSError:
            pass
        finally:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
