"""Start `slipway` and `dvc` quickly, by forking a process that has already imported their libraries.

A job starts a dozen Python programs. Each program would take a second or two to import pandas, scikit-learn or MLflow.
All imports together would take more than half of the demo's time. The code of Slipway and of the model is not imported
before the fork, so each job runs the code in its own checkout.
"""

import array
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from demo import processes
from slipway.errors import InputError

PROGRAMS = {"slipway": "slipway.cli:main", "dvc": "dvc.cli:main"}
LIBRARIES = (
    *("dvc.cli", "dvc.repo", "dvc.api", "dvc.commands.repro", "dvc.output", "dvc_data.index", "dvc_objects.fs.local"),
    *("pandas", "pandera.pandas", "pyarrow.parquet", "scipy.stats", "sklearn.ensemble", "sklearn.pipeline"),
    *("sklearn.compose", "sklearn.metrics", "skl2onnx", "onnxruntime", "matplotlib.backends.backend_svg"),
    *("matplotlib.figure", "mlflow", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store"),
    *("mlflow.store.model_registry.sqlalchemy_store", "docker", "github", "pygit2", "typer.rich_utils"),
)
SOCKET = "warm"
START_SECONDS = 180
"""Time limit for importing all libraries."""
CLIENT = """#!{python} -ISE
import array, json, os, socket, sys
told = json.dumps([{program!r}, sys.argv, os.getcwd(), dict(os.environ)]).encode()
os.chdir({folder!r})  # a socket's path must be short, so it is relative
with socket.socket(socket.AF_UNIX) as ask:
    ask.connect({SOCKET!r})
    streams = array.array("i", [0, 1, 2])
    ask.sendmsg([len(told).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    ask.sendall(told)
    os._exit((ask.recv(1) or b"\\x01")[0])
"""


@contextmanager
def environment(folder: Path) -> Generator[Callable[[], Path], None, None]:
    """Copy this virtual environment to `folder`. Until the `with` block ends, the copy's programs start by a fork.

    Yields a function that waits until the fork server is ready, and returns the folder.
    """
    bin_, here = folder / "bin", Path(sys.prefix)
    bin_.mkdir(parents=True)
    for each in here.iterdir():
        if each.name != "bin":
            (folder / each.name).symlink_to(each)
    for each in (here / "bin").iterdir():
        if each.name not in PROGRAMS:
            (bin_ / each.name).symlink_to(each)
    for program in PROGRAMS:
        client = CLIENT.format(python=sys.executable, folder=str(folder), program=program, SOCKET=SOCKET)
        (bin_ / program).write_text(client, encoding="utf-8")
        (bin_ / program).chmod(0o755)
    command = [sys.executable, "-m", "demo.fork_server", str(bin_ / "python")]
    top = str(Path(__file__).parents[1])  # where the package `demo` is
    paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), top)))
    with processes.started(command, folder, os.environ | {"PYTHONPATH": paths}) as server:
        try:
            yield lambda: _started(folder, server)
        finally:
            processes.end(server.pid)


def _started(folder: Path, server: "subprocess.Popen[str]") -> Path:
    began = time.monotonic()
    while not (folder / SOCKET).exists():
        if server.poll() is not None or time.monotonic() - began > START_SECONDS:
            raise InputError("The programs of the demo do not start; run it with `python -m demo --cold`.")
        time.sleep(0.05)
    return folder


def serve(executable: str) -> None:
    """Import the libraries. Then fork a process for each client that connects to the socket in the current folder."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("slipway", "model", "demo")]:
        del sys.modules[name]
    sys.executable = executable
    gc.collect()
    gc.freeze()  # otherwise the first garbage collection in each child would copy all memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Some libraries start threads when they are imported. These threads are idle, but Python 3.12 warns at each fork.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{SOCKET}.fresh")
        listening.listen(64)
        Path(f"{SOCKET}.fresh").rename(SOCKET)
        while True:
            client, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _run(client)
            client.close()


def _run(client: socket.socket) -> NoReturn:
    """Run the program that a client names, with the client's streams, directory and environment variables."""
    code = 1
    try:
        streams = array.array("i")
        size, sent, *_ = client.recvmsg(8, socket.CMSG_LEN(3 * streams.itemsize))
        streams.frombytes(sent[0][2])
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        told = b""
        while len(told) < int.from_bytes(size, "big"):
            told += client.recv(1 << 20)
        program, arguments, folder, variables = json.loads(told)
        code = _main(program, arguments, folder, variables)
    finally:
        for printed in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                printed.flush()
        client.sendall(bytes([code & 0xFF]))
        os._exit(code)


def _main(program: str, arguments: list[str], folder: str, variables: Mapping[str, str]) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = arguments
    sys.path[:0] = [str(Path(each).resolve()) for each in variables.get("PYTHONPATH", "").split(os.pathsep) if each]
    module, _, name = PROGRAMS[program].partition(":")
    try:
        ended = getattr(importlib.import_module(module), name)()
    except SystemExit as end:
        ended = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return ended if isinstance(ended, int) else int(bool(ended))


if __name__ == "__main__":
    serve(*sys.argv[1:])
