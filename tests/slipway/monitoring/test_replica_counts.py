"""Drift from a real Prometheus that scrapes real replicas, and invalid answers from other servers."""

import math
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipway.bundle import GOLDEN, Golden, folder_hash
from slipway.errors import InputError
from slipway.integrations import prometheus
from slipway.integrations.ports import free_port
from slipway.monitoring.drift import DRIFT, Drift
from slipway.monitoring.replica_counts import read_counts
from tests.slipway.conftest import ROOT, Repository, Result
from tests.slipway.prometheus import Prometheus, running
from tests.slipway.serving.conftest import Serve, Server, odd_bundle, serve, served

Run = Callable[..., Result]
__all__ = ["odd_bundle", "serve", "served"]  # fixtures of tests/slipway/serving
BUNDLE = "0" * 32
SCRAPED_WITHIN = 20


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Repository) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(served.path / "champion", tmp_path / "champion")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def ask(server: Server, rows: int) -> None:
    golden = Golden.model_validate_json((server.bundle / GOLDEN).read_bytes()).rows
    records = [dict(golden[number % len(golden)]) for number in range(rows)]
    httpx.post(f"{server.url}/predict", json=records).raise_for_status()


def wait_for(prometheus: Prometheus, rows: int) -> None:
    """Wait until Prometheus has scraped that many rows, of all bundles."""
    deadline = time.monotonic() + SCRAPED_WITHIN
    while prometheus.values("sum(slipway_prediction_count)", "").get("") != rows:
        assert time.monotonic() < deadline, prometheus.query("slipway_prediction_count")
        time.sleep(0.1)


@pytest.fixture
def drift_of(slipway: Run) -> Callable[..., Drift]:
    def drift(*arguments: str) -> Drift:
        result = slipway("drift", *arguments)
        assert result.code in (0, 1), result.err
        return Drift.read(DRIFT)

    return drift


def test_prometheus_gives_the_same_drift_as_the_pages_of_its_replicas(
    serve: Serve, workplace: Path, odd_bundle: Path, slipway: Run, drift_of: Callable[..., Drift]
) -> None:
    """One replica stops, another one restarts in place, and a third one has another bundle."""
    champion = workplace / "champion"
    port = str(free_port())
    with ExitStack() as stack:
        stays, other = stack.enter_context(serve(champion)), stack.enter_context(serve(odd_bundle))
        goes, restarts = ExitStack(), ExitStack()
        stack.enter_context(goes)
        gone, first = goes.enter_context(serve(champion)), restarts.enter_context(serve(champion, SLIPWAY_PORT=port))
        stack.enter_context(restarts)
        replicas = (stays, gone, first)
        targets = {each.url.removeprefix("http://"): {"namespace": "houses"} for each in (*replicas, other)}
        scraper = stack.enter_context(running(workplace, targets))
        url = ("--prometheus", scraper.url)
        for server, rows in zip((*replicas, other), (700, 300, 200, 5), strict=True):
            ask(server, rows)
        wait_for(scraper, 1205)
        pages = []
        for number, server in enumerate(replicas):
            pages += ["--metrics", f"page-{number}"]
            (workplace / f"page-{number}").write_text(httpx.get(f"{server.url}/metrics").text)
        before = drift_of(*pages)
        assert before.rows == 1200
        assert drift_of(*url) == before

        (workplace / "other").write_text(httpx.get(f"{other.url}/metrics").text)
        assert f"is of the bundle '{folder_hash(odd_bundle)}'" in slipway("drift", "--metrics", "other").err

        # Requests before the window are not counted.
        time.sleep(3)
        began = time.time()
        ask(stays, 64)
        wait_for(scraper, 1269)
        assert drift_of(*url, "--window", f"{math.ceil(time.time() - began) + 1}s").rows == 64

        # A replica that has stopped counts too. A restarted replica counts from zero.
        time.sleep(10)  # the longest time between two moments of two minutes
        goes.close()
        restarts.close()
        ask(stack.enter_context(serve(champion, SLIPWAY_PORT=port)), 40)
        wait_for(scraper, 700 + 64 + 40 + 5)
        assert drift_of(*url, "--window", "2m").rows == 1200 + 64 + 40

        edit_replicas(workplace, 'namespace="elsewhere"')
        nowhere = slipway("drift", *url)
        assert (nowhere.code, "has no counts of the champion" in nowhere.err) == (2, True)
        assert folder_hash(odd_bundle) in nowhere.err  # the bundle that is served now
        edit_replicas(workplace, 'namespace=~"["')
        assert "answers with status 400" in slipway("drift", *url).err


def edit_replicas(workplace: Path, matchers: str) -> None:
    params = (ROOT / "params.yaml").read_text()
    assert params.count("label_matchers: ''") == 1
    (workplace / "params.yaml").write_text(params.replace("label_matchers: ''", f"label_matchers: '{matchers}'"))


# Invalid answers.


@pytest.fixture
def authorizations() -> list[str | None]:
    """Collect the header `Authorization` of every request."""
    return []


@pytest.fixture
def answering(authorizations: list[str | None]) -> Iterator[Callable[[dict[str, Any]], str]]:
    """Start a server with an answer for the last part of a path: a status, chunks, and a pause between them."""
    servers = []

    def start(answers: dict[str, Any]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authorizations.append(self.headers["Authorization"])
                status, chunks, pause = answers[self.path.partition("?")[0].rpartition("/")[2]]
                self.send_response(status)
                self.end_headers()
                try:
                    for chunk in chunks:
                        self.wfile.write(chunk)
                        time.sleep(pause)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


NOW = (200, [b'{"status":"success","data":{"resultType":"scalar","result":[1700000000.5,"1700000000.5"]}}'], 0)


def test_the_token_is_sent_and_not_printed(
    answering: Callable[[dict[str, Any]], str],
    authorizations: list[str | None],
    slipway: Run,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert workplace
    monkeypatch.setenv("SLIPWAY_PROMETHEUS_TOKEN", "s3cret")
    result = slipway("drift", "--prometheus", answering({"query": NOW, "query_range": (401, [b"who is it?"], 0)}))
    assert "answers with status 401: who is it?" in result.err
    assert authorizations == ["Bearer s3cret"] * 2
    assert "s3cret" not in result.err + result.out


def ranges(*series: str) -> tuple[int, list[bytes], int]:
    return 200, [f'{{"data": {{"resultType": "matrix", "result": [{",".join(series)}]}}}}'.encode()], 0


def missing(values: str, name: str = "slipway_feature_missing_total", labels: str = '"feature": "a"') -> str:
    return f'{{"metric": {{"__name__": "{name}", {labels}}}, "values": [{values}]}}'


WRONG = {
    "not JSON": ((200, [b"<html>"], 0), "is not from Prometheus"),
    "an error": ((503, [b"<b>busy</b>\n" * 99], 0), "answers with status 503: <b>busy</b> <b>busy</b>"),
    "another kind": ((200, [b'{"data":{"resultType":"vector","result":[]}}'], 0), "is not from Prometheus"),
    "half of it": ((200, [b'{"data":{"resultType":"matrix","result":[{'], 0), "is not from Prometheus"),
    "nothing": (ranges(), "has no counts of the champion 0000"),
    "a fraction": (ranges(missing('[1, "0.5"]')), "0.5, which is not a count"),
    "no number": (ranges(missing('[1, "many"]')), "'many', which is not a number"),
    "not a number": (ranges(missing('[1, "NaN"]')), "which is not a count"),
    "what was not asked for": (ranges(missing("", name="up")), "answers with up"),
    "no label": (ranges(missing('[1, "1"]', labels='"le": "1"')), "without the labels feature"),
    "the same twice": (ranges(missing('[1, "1"]'), missing('[1, "1"]')), "twice"),
}


@pytest.mark.parametrize(("answer", "words"), WRONG.values(), ids=WRONG)
def test_an_invalid_answer_fails_with_one_sentence(
    answering: Callable[[dict[str, Any]], str], answer: Any, words: str
) -> None:
    client = prometheus.Prometheus(answering({"query": NOW, "query_range": answer}), None)
    with pytest.raises(InputError) as refused:
        read_counts(client, "", BUNDLE, "1h")
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(("limit", "value", "pause"), [("MAX_BYTES", 10_000, 0), ("QUERY_TIMEOUT_SECONDS", 1, 0.05)])
def test_an_answer_without_end_is_refused(
    answering: Callable[[dict[str, Any]], str], monkeypatch: pytest.MonkeyPatch, limit: str, value: int, pause: float
) -> None:
    monkeypatch.setattr(prometheus, limit, value)
    client = prometheus.Prometheus(answering({"query": (200, (b" " * 9 for _ in count()), pause)}), None)
    began = time.monotonic()
    with pytest.raises(InputError, match="too slowly, or too much of it"):
        client.now()
    assert time.monotonic() - began < 10


def test_a_server_that_does_not_answer_fails_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "QUERY_TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = prometheus.Prometheus(f"http://127.0.0.1:{silent.getsockname()[1]}", None)
        with pytest.raises(InputError, match="does not answer"):
            client.now()
