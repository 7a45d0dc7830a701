"""The demo's load client and fakes count and refuse what they should."""

import itertools
import os
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from demo.fakes.balancer import Balancer
from demo.fakes.docker_api import Engine
from demo.fakes.http_server import listen, served
from demo.timeline import by_second, live_periods
from slipway.bundle import folder_hash
from slipway.integrations.ports import free_port
from slipway.release.load_client import LoadClient, Outcome
from tests.slipway.conftest import Repository

BODY = b'{"a": 1}'


def test_every_kind_of_failure_is_counted() -> None:
    """The server gives a good answer, an error, a cut answer, and one that is not JSON, in turn."""
    turns = itertools.cycle(
        [
            Response(b'{"prediction": 1.0}', headers={"slipway-bundle": "a"}),
            Response(b'{"prediction": 1.0}', 503, headers={"slipway-bundle": "a"}),
            Response(b'{"prediction": 1.0}', headers={"slipway-bundle": "a", "content-length": "100"}),
            Response(b"no prediction", headers={"slipway-bundle": "a"}),
        ]
    )

    async def answer(_: Request) -> Response:
        return next(turns)

    listener = listen()
    client = LoadClient(listener.getsockname()[1], [BODY], pause=0.01)
    application = Starlette(routes=[Route("/predict", answer, methods=["POST"])])
    with served(application, listener), client.sending() as load:
        deadline = time.monotonic() + 30
        while len(load.outcomes) < 40 and time.monotonic() < deadline:
            time.sleep(0.1)
    assert {"status 503", "IncompleteRead", "JSONDecodeError"} <= set(load.failures)
    assert sum(1 for each in load.outcomes if each.bundle == "a" and not each.failure) > 3
    assert by_second(load.outcomes)[""].total() == len(load.failures)


def test_a_balancer_without_ready_replicas_loses_requests() -> None:
    """It never retries a request, so that lost requests are counted, also if a replica no longer exists."""
    balancer = Balancer()
    gone = free_port()
    with balancer.balancing(), LoadClient(balancer.port, [BODY], pause=0.01).sending() as load:
        for ports in ((), (gone,)):
            balancer.ports = ports
            answered, deadline = len(load.outcomes) + 10, time.monotonic() + 30
            while len(load.outcomes) < answered and time.monotonic() < deadline:
                time.sleep(0.02)
    assert len(load.failures) == len(load.outcomes) >= 20


def test_an_answer_belongs_to_the_last_rollout_of_its_model() -> None:
    outcomes = [Outcome(at, 0.0, bundle, None) for at, bundle in ((1, "a"), (5, "a"), (6, "b"), (9, "b"), (10, "a"))]
    first, second, third = live_periods([(0, "a"), (4, "b"), (8, "a")], outcomes)
    assert (first.answers, first.first, first.last) == (2, 1, 5)
    assert (second.answers, second.last) == (2, 9)
    assert (third.answers, third.first) == (1, 10)


def test_the_engine_builds_pushes_and_runs_an_image(origin: Repository, tmp_path: Path) -> None:
    """The verbs run unchanged. `image smoke` prints what the engine cannot show, and refuses another bundle."""
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
        assert "this fits the limit of 256 MiB" in tried
        assert "0 failed; gone with exit code 0" in tried
        with (work.path / "champion/golden.json").open("a") as golden:
            golden.write(" ")
        other = work.run("slipway", "image", "smoke", f"slipway@{digest}", "--bundle", "champion", **there)
        assert other.code == 1
        assert f"but champion is {folder_hash(work.path / 'champion')}" in other.err
        assert work.run("slipway", "image", "smoke", "slipway:none", **there).code == 2


def test_a_forked_program_runs_the_code_of_its_checkout(tmp_path: Path, warm_environment: Path) -> None:
    """It has its own folder, variables, exit code and errors."""
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
    for name, word, code in (("one", "good", 0), ("two", "bad", 7)):
        there = Repository(tmp_path / name)
        there.environment |= {"PATH": f"{warm_environment}/bin{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "src"}
        result = there.run("slipway", word, WORD="a word")
        assert (result.code, result.out) == (code, f"{name} {tmp_path / name} a word {word}\n"), result.err
