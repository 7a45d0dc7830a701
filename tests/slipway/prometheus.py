"""A real Prometheus, which scrapes servers on this machine, and promtool."""

import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from slipway.integrations.ports import free_port
from tests.slipway.tools import require

STARTS_WITHIN = 30


@contextmanager
def running(
    folder: Path, targets: Mapping[str, Mapping[str, str]], host: str = "127.0.0.1", **rules: Any
) -> Generator["Prometheus", None, None]:
    """Run a Prometheus that scrapes every second. `targets` are `host:port` with labels, `rules` is a rule file.

    `host` is the address of this machine at which Prometheus answers.
    """
    port = free_port()
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"] if rules else [],
        "scrape_configs": [
            {
                "job_name": "model",
                "static_configs": [{"targets": [target], "labels": dict(labels)} for target, labels in targets.items()],
            }
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [
        require("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={host}:{port}",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            made = Prometheus(f"http://{host}:{port}")
            deadline = time.monotonic() + STARTS_WITHIN
            while not made.is_ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"Prometheus does not start:\n{log.read_text()}")
                time.sleep(0.1)
            yield made
        finally:
            process.kill()  # its data is not needed any more


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").is_success
        except httpx.TransportError:
            return False

    def query(self, query: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=30).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def values(self, query: str, label: str) -> dict[str, float]:
        """Return the value of each series of an instant query, by one of its labels."""
        return {each["metric"].get(label, ""): float(each["value"][1]) for each in self.query(query)}
