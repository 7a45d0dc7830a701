"""Runs of the model graph: cut for heavy requests, shared by requests that arrive together."""

import asyncio
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.serving.heavy_models import bodies, mlp, write_bundle
from slipway.bundle import Tensors
from slipway.errors import InputError
from slipway.provenance import Provenance
from slipway.serving.asgi import Application
from slipway.serving.predict import LoadShedder, PredictionHandler
from slipway.serving.problems import Problem
from slipway.serving.routes import make_app
from slipway.serving.runs import Job, Plan, Runs, measure
from slipway.serving.served_model import ServedModel
from slipway.serving.settings import Settings
from tests.slipway.serving.conftest import Serve, Server
from tests.slipway.serving.odd import AREA, ROW, SOLD, expected
from tests.slipway.serving.test_prediction_log import logged_rows, marked
from tests.slipway.serving.test_server import BODY, REQUEST, REQUEST_TO_CLOSE, answer, connected, until_closed

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the bundle of a model that takes about 20 ms for 100 rows."""
    return write_bundle(tmp_path_factory.mktemp("heavy"), mlp(4, (1024,) * 8), 4)


class Graph:
    """A model whose runs are recorded. Its prediction is the double of a row, or not finite for a negative row."""

    runs_on_cpu = True

    def __init__(self, seconds_per_row: float = 0.0) -> None:
        self.runs: list[list[float]] = []
        self.counted: list[float] = []
        self.seconds = 0.0
        self.seconds_per_row = seconds_per_row

    def run(self, tensors: Tensors) -> Any:
        rows = tensors["numbers"]
        self.runs.append(rows[:, 0].tolist())
        self.seconds += self.seconds_per_row * len(rows)
        if (rows > 1e6).any():
            raise RuntimeError("too large")
        return np.where(rows < 0, np.nan, rows * 2)

    def accept(self, tensors: Tensors, predictions: Any) -> Any:
        if not np.isfinite(predictions).all():
            raise Problem(422, "not finite")
        self.counted += tensors["numbers"][:, 0].tolist()
        return predictions

    def predict(self, tensors: Tensors) -> Any:
        return self.accept(tensors, self.run(tensors))

    def golden_tensors(self) -> Tensors:
        return rows(1, 2, 3)


def rows(*values: float) -> dict[str, Any]:
    return {"numbers": np.array(values, np.float32).reshape(-1, 1)}


def queue(
    graph: Graph,
    *jobs: tuple[float, ...],
    plan: Plan,
    since: Sequence[float] | None = None,
    then: Callable[[Runs, list[Job]], None] | None = None,
) -> list[Any]:
    """Queue jobs, and return their results when no job is left."""
    results: list[Any] = [None] * len(jobs)

    async def add() -> None:
        runs = Runs(graph, plan, 1000)  # type: ignore[arg-type]

        def done(i: int, result: Any) -> None:
            results[i] = result if isinstance(result, Exception) else result[:, 0].tolist()

        added = [
            runs.add(rows(*values), len(values), start, lambda result, i=i: done(i, result))  # type: ignore[misc]
            for i, (values, start) in enumerate(zip(jobs, since or [0.0] * len(jobs), strict=True))
        ]
        if then:
            then(runs, added)
        for _ in range(200):
            await asyncio.sleep(0)
        assert runs.waiting_seconds == 0

    asyncio.run(add())
    return results


SHARED, CUT = Plan(max_rows=4, seconds_per_row=1.0, is_shared=True), Plan(max_rows=3, seconds_per_row=1.0)


def test_requests_that_arrive_together_share_a_run() -> None:
    graph = Graph()
    assert queue(graph, (1,), (2, 3), (4,), plan=SHARED) == [[2], [4, 6], [8]]
    assert graph.runs == [[1, 2, 3, 4]]
    assert graph.counted == [1, 2, 3, 4]


def test_a_shared_run_has_at_most_twice_the_rows_of_another_run() -> None:
    graph = Graph()
    queue(graph, (1, 2, 3), (4, 5, 6), (7, 8, 9), plan=SHARED)
    assert graph.runs == [[1, 2, 3, 4, 5, 6], [7, 8, 9]]


def add_in_iterations(graph: Graph, *iterations: int, plan: Plan) -> list[bool]:
    """Add a number of jobs in each iteration of the event loop. Return `is_contended` at the start of each."""
    contended: list[bool] = []

    async def add() -> None:
        runs = Runs(graph, plan, 1000)  # type: ignore[arg-type]
        for jobs in iterations:
            contended.append(runs.is_contended)
            for _ in range(jobs):
                runs.add(rows(1), 1, 0.0, lambda _: None)
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)

    asyncio.run(add())
    return contended


def test_a_shared_run_waits_while_requests_arrive() -> None:
    graph = Graph()
    add_in_iterations(graph, 1, 2, 1, 0, 0, 1, plan=SHARED)
    assert [len(each) for each in graph.runs] == [4, 1]


def test_a_full_run_does_not_wait_for_requests_that_arrive() -> None:
    graph = Graph()
    add_in_iterations(graph, 5, 4, 3, plan=SHARED)
    assert [len(each) for each in graph.runs] == [8, 4]


def test_runs_that_are_not_shared_wait_for_no_other_request() -> None:
    graph = Graph()
    assert add_in_iterations(graph, 1, 1, 0, 0, plan=CUT) == [False] * 4
    assert [len(each) for each in graph.runs] == [1, 1]


def test_the_client_that_was_served_least_recently_is_run_first() -> None:
    graph = Graph()
    queue(graph, (3,), (1,), (4,), (2,), (5,), since=(3, 1, 4, 2, 5), plan=Plan(max_rows=1, is_shared=True))
    assert graph.runs == [[1, 2], [3, 4], [5]]


def test_a_long_request_takes_turns_with_clients_that_were_served_recently() -> None:
    graph, now = Graph(), time.monotonic()  # the clock of the event loop
    jobs = (tuple(range(10)), (20,), (21,), (22,))
    queue(graph, *jobs, since=(now - 2, now - 1, now - 1, now - 1), plan=Plan(max_rows=2, is_shared=True))
    assert graph.runs[:3] == [[0, 1], [20, 21, 22], [2, 3]]


def test_a_short_request_does_not_wait_for_a_long_one() -> None:
    contended: list[bool] = []
    queue(Graph(), tuple(range(10)), plan=CUT, then=lambda runs, _: contended.append(runs.is_contended))
    queue(Graph(), tuple(range(10)), (1,), plan=CUT, then=lambda runs, _: contended.append(runs.is_contended))
    assert contended == [False, True]


def test_the_second_request_of_an_iteration_makes_the_server_busy() -> None:
    busy: list[bool] = []

    async def arrive() -> None:
        shedder = LoadShedder(1.0, Runs(Graph(), SHARED, 1000))  # type: ignore[arg-type]
        for requests in (1, 2, 1, 1):
            for _ in range(requests):
                shedder.is_overloaded()
                busy.append(shedder.is_busy)
            await asyncio.sleep(0)

    asyncio.run(arrive())
    assert busy == [False, False, True, True, False]


def test_a_request_is_queued_after_a_shared_run_and_while_others_wait() -> None:
    assert add_in_iterations(Graph(), 1, 1, 0, 0, 1, 0, 0, plan=SHARED) == [False, True, True, True, True, True, False]


def test_a_request_with_an_error_does_not_affect_the_others_of_its_run() -> None:
    graph = Graph()
    one, bad, broken, two = queue(graph, (1,), (-1,), (2e6,), (2,), plan=SHARED)
    assert (one, two) == ([2], [4])
    assert isinstance(bad, Problem)
    assert isinstance(broken, RuntimeError)
    assert graph.counted == [1, 2]


def test_a_long_request_is_cut_and_others_are_run_in_between() -> None:
    graph = Graph()
    long = tuple(range(10))
    results = queue(graph, long, (20,), (21,), plan=CUT)
    assert results == [[2 * each for each in long], [40], [42]]
    assert graph.runs == [[0, 1, 2], [20], [21], [3, 4, 5], [6, 7], [8, 9]]
    assert sorted(graph.counted) == [*range(10), 20, 21]


def test_a_long_request_with_a_fault_in_its_last_part_is_not_counted() -> None:
    graph = Graph()
    (result,) = queue(graph, (1, 2, 3, -4), plan=CUT)
    assert isinstance(result, Problem)
    assert graph.counted == []


def test_the_rest_of_a_cancelled_request_is_not_run() -> None:
    graph = Graph()
    results = queue(graph, tuple(range(9)), (20,), plan=CUT, then=lambda runs, jobs: runs.cancel(jobs[0]))
    assert results == [None, [40]]
    assert graph.runs == [[20]]


def test_a_request_can_be_finished_before_its_turn() -> None:
    def finish_twice(runs: Runs, jobs: list[Job]) -> None:
        runs.finish(jobs[1])
        runs.finish(jobs[1])

    graph = Graph()
    queue(graph, (1,), (2,), plan=SHARED, then=finish_twice)
    assert graph.runs == [[2], [1]]


def test_the_waiting_time_counts_one_run_of_a_long_request() -> None:
    """A short request waits for one run of each other request, and a long one for nearly all runs."""
    ahead = []

    def look(runs: Runs, _: list[Job]) -> None:
        ahead.extend([runs.waiting_seconds, runs.seconds_ahead(1), runs.seconds_ahead(100)])

    queue(Graph(), tuple(range(10)), (1, 2), plan=CUT, then=look)
    assert ahead == [5.0, 2.0, 12.0]


def test_a_slow_graph_is_cut_to_the_time_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(seconds_per_row=0.0019)
    monkeypatch.setattr(time, "thread_time", lambda: graph.seconds)
    plan = measure(graph, 0.02, "auto")  # type: ignore[arg-type]
    assert (plan.max_rows, plan.is_shared) == (10, False)


def test_the_slow_first_run_of_a_size_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cold(Graph):
        def run(self, tensors: Tensors) -> Any:
            sizes = [len(each) for each in self.runs]
            self.seconds += 0 if len(tensors["numbers"]) in sizes else 0.1
            return super().run(tensors)

    graph = Cold(seconds_per_row=0.0019)
    monkeypatch.setattr(time, "thread_time", lambda: graph.seconds)
    assert measure(graph, 0.02, "auto").max_rows == 10  # type: ignore[arg-type]


def test_a_cheap_graph_is_not_cut(champion: ServedModel) -> None:
    assert not Runs(champion, measure(champion, 0.02, "auto"), 1000).cuts


def test_runs_are_shared_if_that_is_faster_and_gives_equal_predictions(heavy: Path) -> None:
    model = ServedModel(heavy, "heavy", 1000)
    assert measure(model, 0.02, "auto").is_shared
    assert not measure(model, 0.02, "off").is_shared
    alone = model.run

    def inexact(tensors: Tensors) -> Any:
        return alone(tensors) + np.float32(1e-3 if len(tensors["numbers"]) > 1 else 0)

    model.run = inexact  # type: ignore[method-assign]
    assert not measure(model, 0.02, "auto").is_shared
    with pytest.raises(InputError, match="SLIPWAY_SHARE_RUNS=off"):
        measure(model, 0.02, "on")


def served(path: Path, plan: Plan, **settings: Any) -> Application:
    model = ServedModel(path, "model", 1000)
    handler = PredictionHandler(model, Settings(**settings), plan)
    app = Application(model, Settings(**settings), make_app(model, Provenance(bundle=model.hash)), handler)
    app.ready = True
    return app


def test_the_answer_to_a_cut_request_is_that_of_one_run(heavy: Path) -> None:
    content = json.dumps(bodies(4, 101)).encode()

    async def post(plan: Plan) -> bytes:
        transport = httpx.ASGITransport(served(heavy, plan))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return (await client.post("/predict", content=content, headers=JSON)).content

    assert asyncio.run(post(Plan(max_rows=7, seconds_per_row=1e-3))) == asyncio.run(post(Plan()))


def test_a_second_long_request_is_refused_and_a_short_one_is_answered(heavy: Path) -> None:
    """The runs that wait count as work."""
    app = served(heavy, Plan(max_rows=7, seconds_per_row=1e-2), max_wait=0.2)
    long, short = json.dumps(bodies(4, 101)), json.dumps(bodies(4, 2))

    async def post() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:  # type: ignore[arg-type]
            sent = [client.post("/predict", content=each, headers=JSON) for each in (long, long, short)]
            return [each.status_code for each in await asyncio.gather(*sent)]

    assert asyncio.run(post()) == [200, 503, 200]


def test_probes_are_answered_during_a_long_request(serve: Serve, heavy: Path) -> None:
    content = json.dumps(bodies(4, 1000)).encode()
    with serve(heavy, SLIPWAY_MAX_RUN="0.005") as server, httpx.Client(base_url=server.url, headers=JSON) as client:
        sending = threading.Thread(target=lambda: httpx.post(f"{server.url}/predict", content=content, headers=JSON))
        sending.start()
        probes = 0
        while sending.is_alive():
            assert client.get("/readyz").status_code == 200
            probes += 1
        sending.join()
        assert probes > 10


def test_the_rest_of_a_request_is_not_run_for_a_client_that_left(serve: Serve, heavy: Path) -> None:
    content = json.dumps(bodies(4, 1000)).encode()
    with serve(heavy, SLIPWAY_MAX_RUN="0.001") as server, httpx.Client(base_url=server.url, headers=JSON) as client:
        leaving = connected(server)
        leaving.sendall(REQUEST.split(b"content-length")[0] + b"content-length: %d\r\n\r\n" % len(content) + content)
        while "slipway_requests_in_flight 2.0" not in client.get("/metrics").text:
            pass
        leaving.close()
        while "slipway_requests_in_flight 2.0" in (metrics := client.get("/metrics").text):
            pass
        assert 'slipway_requests_total{route="/predict",status="499"} 1.0' in metrics
        assert 'slipway_prediction_count{output="y"} 0.0' in metrics


def together(server: Server, requests: list[bytes]) -> list[bytes]:
    """Send requests on connections of their own while the server is stopped, twice. Return the last answers."""
    held = [connected(server) for _ in requests]
    for _ in range(2):  # the first time, the first request is answered alone
        server.process.send_signal(signal.SIGSTOP)
        for each, request in zip(held, requests, strict=True):
            each.sendall(request)
        server.process.send_signal(signal.SIGCONT)
        answers = [answer(each) for each in held]
    for each in held:
        each.close()
    return answers


def test_requests_that_share_a_run_have_their_own_answers_ids_and_errors(serve: Serve, odd_bundle: Path) -> None:
    def request(body: bytes, number: int) -> bytes:
        return (
            REQUEST.replace(b"host: x", b"x-request-id: id-%d" % number).replace(b"%d" % len(BODY), b"%d" % len(body))
            + body
        )

    good = [ROW | {AREA: area} for area in (1, 2, 3)]
    bad = [ROW | {SOLD: "1990-01-01"}, ROW | {AREA: "x"}]
    sent = [json.dumps(each).encode() for each in (*good, *bad)]
    with serve(odd_bundle, SLIPWAY_SHARE_RUNS="on") as server:
        answers = together(server, [request(body, i) for i, body in enumerate(sent)])
        metrics = httpx.get(f"{server.url}/metrics").text
    for i, each in enumerate(answers):
        assert b"x-request-id: id-%d\r\n" % i in each
    assert [json.loads(each.partition(b"\r\n\r\n")[2]) for each in answers[:3]] == [
        {"prediction": expected(row)} for row in good
    ]
    assert [each[9:12] for each in answers] == [b"200"] * 3 + [b"422"] * 2
    assert 'slipway_prediction_count{output="price"} 6.0' in metrics
    assert 'slipway_requests_total{route="/predict",status="200"} 6.0' in metrics
    assert 'slipway_requests_total{route="/predict",status="422"} 4.0' in metrics


def test_pipelined_requests_that_could_share_a_run_are_answered_in_order(serve: Serve, odd_bundle: Path) -> None:
    bodies_of = [json.dumps(ROW | {AREA: area}).encode() for area in (1, 2, 3)]
    with serve(odd_bundle, SLIPWAY_SHARE_RUNS="on") as server:
        pipelined = b"".join(REQUEST + body for body in bodies_of) + REQUEST_TO_CLOSE
        answers = []
        for connection in [connected(server) for _ in range(4)]:
            connection.sendall(pipelined)
            connection.shutdown(socket.SHUT_WR)
            answers.append(until_closed(connection))
    for received in answers:
        assert [float(each) for each in re.findall(rb'"prediction":([0-9.]+)', received)] == [
            expected(ROW | {AREA: area}) for area in (1, 2, 3, 3)
        ]


def test_the_log_has_each_request_that_shared_a_run(serve: Serve, odd_bundle: Path, tmp_path: Path) -> None:
    sent = [ROW | {AREA: area} for area in (1, 2, 3)]
    requests = [
        REQUEST.replace(b"host: x", b"x-request-id: id-%d" % i) + json.dumps(row).encode() for i, row in enumerate(sent)
    ]
    folder = tmp_path / "log"
    with serve(marked(odd_bundle, tmp_path), SLIPWAY_SHARE_RUNS="on", SLIPWAY_PREDICTION_LOG=str(folder)) as server:
        together(server, requests)
    logged = [(each["id"], each["record"][AREA], each["answer"]) for each in logged_rows(folder)]
    assert sorted(logged) == sorted([(f"id-{i}", row[AREA], [expected(row)]) for i, row in enumerate(sent)] * 2)
