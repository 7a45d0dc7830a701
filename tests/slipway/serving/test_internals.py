"""Internals of uvicorn, httptools and ONNX Runtime that the server overrides or calls.

pyproject.toml bounds these packages. When an upgrade raises a bound, these tests name what has moved.
"""

import asyncio
import re
import tomllib
from importlib.metadata import version
from typing import Any

import httptools
import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from slipway.bundle import onnx_session
from tests.slipway.conftest import ROOT
from tests.slipway.serving import odd

PROTOCOL = (
    "connection_made connection_lost data_received on_message_begin on_headers_complete on_body on_message_complete"
)
PROTOCOL += " timeout_keep_alive_handler transport flow pipeline parser scope url headers expect_100_continue"
PROTOCOL += " cycle loop connections server_state timeout_keep_alive timeout_keep_alive_task eof_received shutdown"
PARSER = "feed_data set_dangerous_leniencies should_upgrade should_keep_alive get_method get_http_version"
USED = {
    "uvicorn HttpToolsProtocol": PROTOCOL,
    "uvicorn RequestResponseCycle": "response_complete",
    "uvicorn FlowControl": "resume_reading write_paused",
    "uvicorn ServerState": "default_headers total_requests",
    "uvicorn Server": "startup handle_exit should_exit",
    "httptools HttpRequestParser": PARSER,
    "onnxruntime InferenceSession": "_sess",
}


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """Make one object of each class, as uvicorn makes them."""

    async def make() -> dict[str, Any]:
        config = uvicorn.Config(lambda: None, http="httptools", log_config=None)
        protocol = httptools_impl.HttpToolsProtocol(config, ServerState(), {})
        protocol.on_message_begin()
        cycle = httptools_impl.RequestResponseCycle
        state = dict.fromkeys(cycle.__init__.__annotations__.keys() - {"return"})
        return {
            "uvicorn HttpToolsProtocol": protocol,
            "uvicorn RequestResponseCycle": cycle(**state),  # type: ignore[arg-type]
            "uvicorn FlowControl": FlowControl(asyncio.Transport()),
            "uvicorn ServerState": ServerState(),
            "uvicorn Server": uvicorn.Server(config),
            "httptools HttpRequestParser": protocol.parser,
            "onnxruntime InferenceSession": onnx_session(odd.graph()),
        }

    return asyncio.run(make())


@pytest.mark.parametrize("owner", USED)
def test_internals_that_the_server_uses_exist(objects: dict[str, Any], owner: str) -> None:
    package, name = owner.split()
    moved = [each for each in USED[owner].split() if not hasattr(objects[owner], each)]
    assert not moved, (
        f"{package} {version(package)} has moved {', '.join(moved)} of {name}; adapt src/slipway/serving or lower the "
        "bound in pyproject.toml."
    )


def test_an_upgrade_stops_the_parser_at_the_end_of_the_headers() -> None:
    head = b"POST / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as upgrade:
        httptools.HttpRequestParser(object()).feed_data(head + b"x")
    assert upgrade.value.args == (len(head),)


@pytest.mark.parametrize("package", ["uvicorn", "httptools", "onnxruntime"])
def test_packages_with_used_internals_have_bounds_that_the_locked_versions_satisfy(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [each for each in map(Requirement, project["dependencies"]) if each.name == package]
    assert bounds
    assert all(any(bound.operator == "<" for bound in each.specifier) for each in bounds)
    for lock in ("serve", "train", "dev"):
        text = (ROOT / f"requirements/{lock}.txt").read_text()
        locked = re.findall(rf"^{package}==(\S+)", text, re.MULTILINE)
        assert locked
        for pin in locked:
            assert any(each.specifier.contains(pin) for each in bounds), f"{package} {pin} in {lock}.txt"
