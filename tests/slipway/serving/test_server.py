"""The server process: start, limits of connections, and stop without a dropped request."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from slipway.bundle import GOLDEN, MODEL, REFERENCE
from slipway.errors import InputError
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import read_settings
from tests.slipway.conftest import Result
from tests.slipway.serving.conftest import Serve, Server
from tests.slipway.serving.odd import ROW, expected

BODY = json.dumps(ROW).encode()
REQUEST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
    BODY
)


REQUEST_TO_CLOSE = REQUEST.replace(b"host: x", b"connection: close") + BODY


def logged(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def connected(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def run(bundle: Path, **variables: str) -> Result:
    """Run a server that is expected to exit."""
    done = subprocess.run(
        [sys.executable, "-m", "slipway.serving", str(bundle)],
        env=os.environ | {"SLIPWAY_PORT": "0"} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_server_answers_and_logs_json(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle) as server:
        answer = httpx.post(f"{server.url}/predict", content=BODY, headers={"content-type": "application/json"})
        assert answer.json() == {"prediction": expected(ROW)}
    assert [each["message"] for each in logged(server)] == ["starting", "ready", "draining", "stopping"]
    assert server.process.returncode == 0


def test_the_verb_serves_a_bundle(origin: Any, odd_bundle: Path) -> None:
    command = ["slipway", "serve", str(odd_bundle), "--port", "0"]
    with subprocess.Popen(command, env=origin.cold, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert [each["message"] for each in lines] == ["starting", "ready"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (GOLDEN, lambda text: text.replace("1132", "9132"), "predictions differ from those in golden.json"),
        (GOLDEN, lambda text: text.replace('"x"', '""'), "golden.json"),
        (REFERENCE, lambda text: text[:50], "reference.json is corrupt"),
        (MODEL, lambda _: None, "model.onnx is missing"),
    ],
)
def test_a_changed_bundle_is_not_loaded(
    odd_bundle: Path, tmp_path: Path, name: str, change: Callable[[str], str | None], words: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(odd_bundle, bundle)
    text = change((bundle / name).read_text(errors="replace"))
    (bundle / name).unlink()
    if text is not None:
        (bundle / name).write_text(text)
    with pytest.raises(InputError, match=words) as error:
        ServedModel(bundle, "odd", 5)
    assert "\n" not in str(error.value)


def test_the_server_does_not_start_with_a_changed_bundle(odd_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(odd_bundle, tmp_path / "bundle"))
    (bundle / GOLDEN).write_text((bundle / GOLDEN).read_text().replace("1132", "9132"))
    result = run(bundle)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "predictions differ from those in golden.json" in result.err


def test_provenance_of_another_bundle_does_not_start(odd_bundle: Path, tmp_path: Path) -> None:
    provenance = tmp_path / "provenance.json"
    provenance.write_text('{"bundle": "0123"}')
    result = run(odd_bundle, SLIPWAY_PROVENANCE=str(provenance))
    assert result.code == 2
    assert "is about bundle 0123" in result.err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("GRACE", "-1"),
        ("MAX_BODY", "1e3"),
        ("MODEL_NAME", "a/b"),
        ("DEADLINE", "0"),
        ("KEEP_ALIVE", "inf"),
        ("KEEP_ALIVE", "nan"),
        ("MAX_WAIT", "inf"),
        ("MAX_RUN", "0"),
        ("SHARE_RUNS", "yes"),
        ("MAX_RECORDS", "99999999999999999999"),
        ("MODEL_NAME", ".."),
        ("EXECUTION_PROVIDERS", ","),
        ("HOST", ""),
        ("PREDICTION_LOG", ""),
        *((name, "1e300") for name in ("DEADLINE", "KEEP_ALIVE", "GRACE", "MAX_WAIT", "PREDICTION_LOG_SECONDS")),
    ],
)
def test_an_invalid_setting_is_an_error_that_names_it(variable: str, value: str) -> None:
    with pytest.raises(InputError, match=f"^The environment variable SLIPWAY_{variable} is wrong: .*; correct it.$"):
        read_settings({f"SLIPWAY_{variable}": value})


def test_an_empty_secret_is_ignored() -> None:
    assert not read_settings({"SLIPWAY_PREDICTION_LOG_SECRET": ""}).prediction_log_secret


@pytest.mark.parametrize(("option", "value"), [("--port", "70000"), ("--port", "-1"), ("--host", "")])
def test_an_invalid_option_of_the_verb_is_one_sentence(slipway: Callable[..., Result], option: str, value: str) -> None:
    result = slipway("serve", "nothing", option, value)
    assert (result.code, "Traceback" in result.err) == (2, False)
    assert option in result.err or "SLIPWAY_HOST is wrong" in result.err


def test_the_server_does_not_start_with_an_invalid_setting(odd_bundle: Path) -> None:
    result = run(odd_bundle, SLIPWAY_KEEP_ALIVE="nan")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "SLIPWAY_KEEP_ALIVE is wrong" in result.err


def test_a_provider_that_does_not_work_here_does_not_fall_back_to_the_cpu(odd_bundle: Path) -> None:
    result = run(odd_bundle, SLIPWAY_EXECUTION_PROVIDERS="RefusedExecutionProvider, CPUExecutionProvider")
    assert result.code == 2
    assert "cannot use RefusedExecutionProvider here" in result.err
    assert result.err.count("\n") == 1


def test_a_port_that_is_taken_fails_with_one_sentence(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle) as server:
        result = run(odd_bundle, SLIPWAY_PORT=server.url.rpartition(":")[2])
    assert result.code == 2
    assert "cannot listen on" in result.err


def test_the_command_without_a_bundle_shows_its_usage() -> None:
    done = subprocess.run([sys.executable, "-m", "slipway.serving"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Name one bundle" in done.stderr


def test_the_size_of_headers_is_limited(odd_server: Server) -> None:
    """The parser would hold headers of any size that never end."""
    for filler in (b"a: " + b"x" * 1000 + b"\r\n", b"x" * 1000):
        with connected(odd_server) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nb: ")
            sent = 0
            try:
                while sent < 10_000_000:
                    connection.sendall(filler)
                    sent += len(filler)
            except OSError:
                pass
            assert sent < 10_000_000
    assert httpx.get(f"{odd_server.url}/healthz").status_code == 200


def test_connections_without_a_request_are_closed(serve: Serve, odd_bundle: Path) -> None:
    """Each is closed before the time limit of `connected` ends, which is the default deadline."""
    with serve(odd_bundle, SLIPWAY_DEADLINE="0.5") as server:
        for start in (b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nhost: x\r\n"):
            with connected(server) as connection:
                connection.sendall(start)
                assert b" 408 " in until_closed(connection)
        with connected(server) as connection:  # the second request of a connection, too
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 200 " in connection.recv(65536)
            connection.sendall(b"GET /heal")
            assert b" 408 " in until_closed(connection)


@pytest.fixture(scope="module")
def impatient_server(serve: Serve, odd_bundle: Path) -> Iterator[Server]:
    with serve(odd_bundle, SLIPWAY_DEADLINE="0.5", SLIPWAY_KEEP_ALIVE="2") as server:
        yield server


@pytest.mark.parametrize(
    ("request_bytes", "later"),
    [
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", b""),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b""),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n", b""),
        (REQUEST + BODY, b"\r\n"),
        (b"GET /version HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", b"x"),
        (b"POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", b"x"),
    ],
)
def test_requests_that_do_not_end_are_closed(impatient_server: Server, request_bytes: bytes, later: bytes) -> None:
    with connected(impatient_server) as connection:
        connection.sendall(request_bytes)
        time.sleep(0.2)
        connection.sendall(later)
        connection.settimeout(5)
        until_closed(connection)


UPGRADE = REQUEST.replace(
    b"host: x", b"host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA"
)


def test_upgrade_is_ignored(odd_server: Server) -> None:
    """Java's HttpClient and `curl --http2` send it with every first request. RFC 9110, 7.8 allows to ignore it."""
    chunked = UPGRADE.replace(b"content-length: %d" % len(BODY), b"transfer-encoding: chunked")
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    websocket = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    with connected(odd_server) as connection:
        for whole in (UPGRADE + BODY, chunked, websocket, REQUEST + BODY):
            connection.sendall(whole)
            assert answer(connection).startswith(b"HTTP/1.1 200 OK")
        for whole in (UPGRADE + BODY, chunked):
            for part in (whole[:-150], whole[-150:-10], whole[-10:]):
                connection.sendall(part)
                time.sleep(0.05)
            assert answer(connection).startswith(b"HTTP/1.1 200 OK")
        connection.sendall((UPGRADE + BODY + chunked) * 3 + REQUEST_TO_CLOSE)
        assert until_closed(connection).count(b'{"prediction":') == 7


def test_a_body_after_an_upgrade_is_not_a_request(odd_server: Server) -> None:
    hidden = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
    head = UPGRADE.replace(b"content-length: %d" % len(BODY), b"content-length: %d" % len(hidden))
    for parts in ([head + hidden], [head, hidden]):
        with connected(odd_server) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.1)
            assert answer(connection).startswith(b"HTTP/1.1 400")
            connection.sendall(REQUEST_TO_CLOSE)
            assert until_closed(connection).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "headers",
    [
        b"transfer-encoding: chunked\r\ncontent-length: 4",
        b"content-length: 4\r\ntransfer-encoding: chunked",
        b"content-length: 4\r\ncontent-length: 5",
        b"transfer-encoding: chunked, identity",
        b"transfer-encoding: x",
        b"content-length: +4",
        b"transfer-encoding:\r\n chunked",
    ],
)
@pytest.mark.parametrize("upgrade", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"], ids=["plain", "upgrade"])
def test_a_body_of_unclear_length_is_refused(odd_server: Server, headers: bytes, upgrade: bytes) -> None:
    body = b"0\r\n\r\nGET /version HTTP/1.1\r\nhost: x\r\n\r\n"
    with connected(odd_server) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n" + upgrade + headers + b"\r\n\r\n" + body)
        received = until_closed(connection)
        assert received.startswith(b"HTTP/1.1 400")
        assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("path", ["/", "/metrics", "/version", "/docs", "/openapi.json", "/nothing"])
def test_head_has_the_headers_of_get_and_no_body(odd_server: Server, path: str) -> None:
    with httpx.Client(base_url=odd_server.url) as client:
        for _ in range(2):  # the connection can be used again
            head, get = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (get.status_code, b"")
            assert head.headers["content-type"] == get.headers["content-type"]


def test_connect_is_refused(odd_server: Server) -> None:
    with connected(odd_server) as connection:
        connection.sendall(b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n" + REQUEST + BODY)
        received = until_closed(connection)
        assert received.startswith(b"HTTP/1.1 501")
        assert received.count(b"HTTP/1.1 ") == 1


def test_idle_connections_live_for_keep_alive(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle, SLIPWAY_DEADLINE="0.3", SLIPWAY_KEEP_ALIVE="2") as server, connected(server) as connection:
        for _ in range(2):
            connection.sendall(REQUEST + BODY)
            assert b" 200 " in connection.recv(65536)
            time.sleep(1)
        begun = time.monotonic()
        assert until_closed(connection) == b""
        assert time.monotonic() - begun < 5


def test_a_line_break_does_not_keep_a_connection_open(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle, SLIPWAY_DEADLINE="0.3", SLIPWAY_KEEP_ALIVE="30") as server, connected(server) as connection:
        connection.sendall(REQUEST + BODY)
        assert b" 200 " in connection.recv(65536)
        connection.sendall(b"\r\n")
        assert until_closed(connection).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("header", [b"connection", b"proxy-connection"])
def test_http_1_0_gets_one_answer(odd_server: Server, header: bytes) -> None:
    request = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"host: x", header + b": keep-alive")
    with connected(odd_server) as connection:
        connection.sendall(request + BODY)
        assert b"\r\nconnection: close\r\n" in until_closed(connection)


def test_the_number_of_connections_is_limited(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle, SLIPWAY_MAX_CONNECTIONS="3") as server:
        held = [connected(server) for _ in range(3)]
        for each in held:
            each.sendall(REQUEST + BODY)
            assert b" 200 " in each.recv(65536)
        with connected(server) as extra:
            assert until_closed(extra).startswith(b"HTTP/1.1 503")
        for each in held:
            each.sendall(REQUEST + BODY)
            assert b" 200 " in each.recv(65536)
            each.close()
        time.sleep(0.2)
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_requests_beyond_the_capacity_are_refused_at_once(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle, SLIPWAY_MAX_WAIT="0.001") as server:
        held = [accepted(server) for _ in range(200)]
        for _ in range(3):  # a refused client can try again on its connection
            server.process.send_signal(signal.SIGSTOP)  # so that all of them arrive together
            for each in held:
                each.sendall(REQUEST + BODY)
            probe = connected(server)
            probe.sendall(PROBE)
            server.process.send_signal(signal.SIGCONT)
            assert answer(probe).startswith(b"HTTP/1.1 200")
            heads = [answer(each) for each in held]
            refused = [head for head in heads if head.startswith(b"HTTP/1.1 503")]
            assert 0 < len(refused) < len(held)
            assert all(b"retry-after: 1" in head and b"problem+json" in head for head in refused)
            assert len(refused) + sum(head.startswith(b"HTTP/1.1 200") for head in heads) == len(held)
        for each in (*held, probe):
            each.close()
        assert httpx.post(f"{server.url}/predict", json=ROW).status_code == 200


def test_a_refusal_closes_the_connection_if_the_client_requests_it(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle, SLIPWAY_MAX_WAIT="0.001") as server:
        held = [accepted(server) for _ in range(100)]
        server.process.send_signal(signal.SIGSTOP)
        for each in held:
            each.sendall(REQUEST.replace(b"host: x", b"connection: close") + BODY)
        server.process.send_signal(signal.SIGCONT)
        answers = [until_closed(each) for each in held]
        assert {each[:12] for each in answers} == {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        server.process.send_signal(signal.SIGSTOP)
        asking = [connected(server) for _ in range(100)]
        for each in asking:
            each.sendall(REQUEST.replace(b"host: x", b"expect: 100-continue"))
        server.process.send_signal(signal.SIGCONT)
        assert {each.recv(65536)[:12] for each in asking[:20]} <= {b"HTTP/1.1 100", b"HTTP/1.1 503"}


PROBE = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def accepted(server: Server) -> socket.socket:
    """Return a connection that the server has accepted, so that requests on many of them can arrive together."""
    connection = connected(server)
    connection.sendall(PROBE)
    assert answer(connection).startswith(b"HTTP/1.1 200")
    return connection


def answer(connection: socket.socket) -> bytes:
    """Read one complete answer."""
    received = b""
    while b"\r\n\r\n" not in received or b"}" not in received:
        part = connection.recv(65536)
        assert part, received
        received += part
    return received


def test_pipelined_requests_are_answered_in_order(odd_server: Server) -> None:
    with connected(odd_server) as connection:
        ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\n%s\r\n"
        connection.sendall(REQUEST + BODY + ask % b"" + REQUEST + BODY + ask % b"connection: close\r\n")
        received = until_closed(connection)
        assert received.count(b" 200 OK") == 4
        assert [received.find(b"prediction") < received.find(b"live"), received.count(b"prediction")] == [True, 2]


def test_a_thousand_pipelined_requests_are_answered(serve: Serve, odd_bundle: Path) -> None:
    """They arrive in pieces of any size, which may end anywhere in a request."""
    with serve(odd_bundle, SLIPWAY_MAX_WAIT="10") as server, connected(server) as connection:
        sending = threading.Thread(target=connection.sendall, args=((REQUEST + BODY) * 1999 + REQUEST_TO_CLOSE,))
        sending.start()
        received = until_closed(connection)
        sending.join()
        assert received.count(b"HTTP/1.1 200 OK") == received.count(b'{"prediction":') == 2000


def test_an_idle_connection_holds_no_body(odd_server: Server) -> None:
    body = BODY + b" " * 200_000
    request = REQUEST.replace(b"%d" % len(BODY), b"%d" % len(body)) + body
    with ExitStack() as stack:
        sizes = []
        for _ in range(400):
            quiet = stack.enter_context(connected(odd_server))
            quiet.sendall(request)
            assert answer(quiet).startswith(b"HTTP/1.1 200")
            memory = Path(f"/proc/{odd_server.process.pid}/status").read_text()
            sizes.append(int(re.findall(r"VmRSS:\s+(\d+)", memory)[0]))
        assert sizes[-1] - sizes[20] < 20_000, "kilobytes"


@pytest.mark.parametrize("request_bytes", [REQUEST + BODY, b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"])
def test_a_client_that_does_not_read_takes_no_memory(serve: Serve, odd_bundle: Path, request_bytes: bytes) -> None:
    with serve(odd_bundle) as server, connected(server) as connection:
        connection.settimeout(1)
        with pytest.raises(OSError):  # noqa: PT011 - the server stops reading, or closes the connection
            connection.sendall(request_bytes * 400_000)
        memory = Path(f"/proc/{server.process.pid}/status").read_text()
        assert int(re.findall(r"VmHWM:\s+(\d+)", memory)[0]) < 150_000, "kilobytes"
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_bytes_that_are_not_http_are_refused(odd_server: Server) -> None:
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST /predict HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    ):
        with connected(odd_server) as connection:
            connection.sendall(noise)
            assert b" 400 " in until_closed(connection)
    upgrade = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    with connected(odd_server) as connection:
        connection.sendall(upgrade)
        assert b"HTTP/1.1 " in connection.recv(65536)
    assert httpx.get(f"{odd_server.url}/healthz").status_code == 200


def test_sigterm_drains(serve: Serve, odd_bundle: Path) -> None:
    """The server is not ready at once, but answers for the grace period with `Connection: close`. It exits with 0."""
    with serve(odd_bundle, SLIPWAY_GRACE="4") as server:
        address = urlsplit(server.url).netloc
        connection = HTTPConnection(address)
        connection.request("POST", "/predict", BODY, {"content-type": "application/json"})
        before = connection.getresponse()
        assert before.read()
        assert before.headers["connection"] is None
        slow = connected(server)
        slow.sendall(REQUEST + BODY[:5])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        time.sleep(0.3)
        connection.request("POST", "/predict", BODY, {"content-type": "application/json"})  # on the old connection
        during = connection.getresponse()
        assert json.loads(during.read()) == {"prediction": expected(ROW)}
        assert during.headers["connection"] == "close"
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        time.sleep(max(0.0, begun + 4.2 - time.monotonic()))
        slow.sendall(BODY[5:])  # in progress at the end of the grace period
        assert b" 200 " in until_closed(slow)
        assert server.process.wait(timeout=10) == 0
        assert time.monotonic() - begun >= 4


def test_sigterm_during_the_start_ends_the_server(odd_bundle: Path) -> None:
    code = "import os, runpy, signal, sys; import slipway.serving.__main__ as m; import threading\n"
    code += "threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGTERM)).start(); m.main()"
    done = subprocess.run([sys.executable, "-c", code, str(odd_bundle)], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0
    assert b'"ready"' not in done.stdout


def test_a_second_sigterm_stops_at_once(serve: Serve, odd_bundle: Path) -> None:
    with serve(odd_bundle, SLIPWAY_GRACE="60") as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=10) == 0
        assert time.monotonic() - begun < 5


def test_no_request_is_dropped_by_a_stop_under_load(serve: Serve, odd_bundle: Path) -> None:
    """The clients keep their connections, and open new ones after `Connection: close`."""
    failures: list[str] = []
    answered = [0]
    with serve(odd_bundle, SLIPWAY_GRACE="1") as server:
        address = urlsplit(server.url).netloc
        leave = threading.Event()

        def client() -> None:
            connection = HTTPConnection(address)
            while not leave.is_set():
                try:
                    connection.request("POST", "/predict", BODY, {"content-type": "application/json"})
                    response = connection.getresponse()
                    response.read()
                    answered[0] += 1
                    if response.status != 200:
                        failures.append(str(response.status))
                except OSError as error:
                    failures.append(repr(error))
                    return

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        leave.set()  # by now, a load balancer has removed the replica
        for thread in threads:
            thread.join()
        assert server.process.wait(timeout=10) == 0
    assert failures == []
    assert answered[0] > 100
