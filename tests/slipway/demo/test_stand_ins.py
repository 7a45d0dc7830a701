"""What the demo counts and stands in for says no where it must."""

import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from demo import fork_server
from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Engine
from demo.load import Load, Outcome
from demo.timeline import by_second, live_periods
from slipway.bundle import folder_hash
from tests.slipway.conftest import Repository


class Sick(BaseHTTPRequestHandler):
    """Answers well, with an error, not at all, with words, in turn."""

    turn = 0
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Sick.turn += 1
        if Sick.turn % 4 == 2:
            self.close_connection = True
            return
        body = b"no prediction" if Sick.turn % 4 == 3 else b'{"prediction": 1.0}'
        self.send_response(503 if Sick.turn % 4 == 1 else 200)
        self.send_header("slipway-bundle", "a")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_every_kind_of_failure_is_counted() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sick)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Load(server.server_address[1], [{"a": 1}], time.monotonic()).sending() as load:
        time.sleep(1.5)
    server.shutdown()
    server.server_close()
    failures = [each.failure for each in load.outcomes if each.failure]
    assert {"status 503", "RemoteDisconnected", "JSONDecodeError"} <= set(failures)
    assert sum(1 for each in load.outcomes if each.bundle == "a" and not each.failure) > 3
    assert by_second(load.outcomes)[""].total() == len(failures)


def test_a_balancer_without_replicas_loses_requests() -> None:
    """And one whose replica is gone: nothing is sent a second time, so a careless rollout would show."""
    balancer = Balancer()
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = free.getsockname()[1]
    with balancer.balancing(), Load(balancer.port, [{"a": 1}], time.monotonic()).sending() as load:
        time.sleep(0.3)
        balancer.ports = (gone,)
        time.sleep(0.3)
    assert [each.failure for each in load.outcomes if each.failure]
    assert not [each for each in load.outcomes if not each.failure]


def test_an_answer_belongs_to_the_last_naming_of_its_model() -> None:
    outcomes = [Outcome(at, 0.0, bundle, None) for at, bundle in ((1, "a"), (5, "a"), (6, "b"), (9, "b"), (10, "a"))]
    first, second, third = live_periods([(0, "a"), (4, "b"), (8, "a")], outcomes)
    assert (first.answers, first.first, first.last) == (2, 1, 5)
    assert (second.answers, second.last) == (2, 9)
    assert (third.answers, third.first) == (1, 10)


def test_the_engine_makes_of_a_commit_what_runs(origin: Repository, tmp_path: Path) -> None:
    """By the verbs as they are. What it cannot try it says; what is not the bundle that was asked for is refused."""
    work = origin.clone(tmp_path / "work")
    work.must("dvc", "pull", "--quiet", "champion.dvc")
    with Engine(tmp_path / "engine").serving() as engine:
        there = {"DOCKER_HOST": engine.host}
        work.must("slipway", "image", "build", "--tag", "trial", **there)
        said = work.must("slipway", "image", "push", "slipway:trial", **there)
        digest = engine.images["slipway:trial"].digest
        assert digest in said
        tried = work.must("slipway", "image", "smoke", f"slipway@{digest}", **there)
        assert "NOT TRIED: the engine runs plain processes" in tried
        assert "golden rows answered as recorded" in tried
        assert "0 failed; gone with exit code 0" in tried
        with (work.path / "champion/golden.json").open("a") as golden:
            golden.write(" ")
        other = work.run("slipway", "image", "smoke", f"slipway@{digest}", "--bundle", "champion", **there)
        assert other.code == 1
        assert f"and champion is {folder_hash(work.path / 'champion')}" in other.err
        assert work.run("slipway", "image", "smoke", "slipway:none", **there).code == 2


def test_a_warm_program_is_that_of_its_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own folder, variables, exit code and errors."""
    for name in ("one", "two"):
        package = tmp_path / name / "src/slipway"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        lines = [
            "import os, sys",
            "def main():",
            f"    print({name!r}, os.getcwd(), os.environ['WORD'], *sys.argv[1:])",
        ]
        (package / "cli.py").write_text("\n".join([*lines, "    sys.exit(7 if 'bad' in sys.argv else 0)"]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    with fork_server.environment(tmp_path / "venv") as started:
        venv = started()
        for name, word, code in (("one", "good", 0), ("two", "bad", 7)):
            there = Repository(tmp_path / name)
            there.environment |= {"PATH": f"{venv}/bin{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "src"}
            result = there.run("slipway", word, WORD="a word")
            assert (result.code, result.out) == (code, f"{name} {tmp_path / name} a word {word}\n"), result.err
