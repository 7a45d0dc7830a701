"""Provide a fake of a Kubernetes Service that distributes connections (not single requests) to ready replicas."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager


class Balancer:
    """Passes connections to `ports` in turn. The workload sets `ports` to the ports of its ready replicas."""

    def __init__(self) -> None:
        self.ports: tuple[int, ...] = ()
        self._turn = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def balancing(self) -> Generator["Balancer", None, None]:
        """Accept connections until the block ends."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._pass_on, sock=self._socket), loop).result()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_end(server), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a connection to one replica. There is no second attempt, so a missing replica causes a failure."""
        ports, self._turn = self.ports, self._turn + 1
        try:
            if ports:
                replica, to = await asyncio.open_connection("127.0.0.1", ports[self._turn % len(ports)])
                await asyncio.gather(_copy(reader, to), _copy(replica, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def _end(server: asyncio.Server) -> None:
    """Accept no more connections, and close the open connections."""
    server.close()
    passing = asyncio.all_tasks() - {asyncio.current_task()}
    for each in passing:
        each.cancel()
    await asyncio.gather(*passing, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
