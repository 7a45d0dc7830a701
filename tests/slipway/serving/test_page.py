"""The page and the API documentation in a real browser. All requests go to this server."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import Browser, Locator, Page, Response, Route, expect

from slipway.bundle import GOLDEN, MODEL, REFERENCE, SCHEMA, Column, FeatureReference, Golden, Reference, Schema
from tests.slipway.accessibility import violations_in_every_view
from tests.slipway.browser import chromium
from tests.slipway.serving import arrays, odd
from tests.slipway.serving.conftest import Serve, Server

NUMBER = "'><img src=x onerror=alert(1)>"
PROTO = "__proto__"
TEXT = "<script>alert(2)</script>/~%"
CHOICE = "toString"
CHOICES = ('"><img src=x onerror=alert(3)>', "b&amp;w")
CLASSES = ('"><img src=x onerror=alert(4)>', "<b>no</b>")
TARGET = "</title><img src=x onerror=alert(5)>"


@dataclass
class Tab:
    """A tab of the browser, with its errors and requests."""

    page: Page
    may_fail: str = "nothing"
    """The file whose request fails in this test. The browser logs that as an error."""
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def labelled(self, label: str) -> Locator:
        return self.page.get_by_label(label, exact=True)

    def ask(self) -> Response:
        with self.page.expect_response("**/predict") as waiting:
            self.page.get_by_role("button", name="Predict").click()
        return waiting.value


Open = Callable[[str], Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Open]:
    """Open a page. After the test, check that no script failed, no dialog opened, and all requests were local."""
    context = browser.new_context(locale="en-US", viewport={"width": 1200, "height": 900})
    tab = Tab(context.new_page())
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.page.on(
        "console",
        lambda line: tab.errors.append(f"{line.text} {line.location['url']}") if line.type == "error" else None,
    )
    tab.page.on("dialog", lambda dialog: (tab.errors.append(f"dialog {dialog.message}"), dialog.dismiss()))
    context.on("request", lambda request: tab.requested.append(request.url))

    def go(url: str) -> Tab:
        tab.page.goto(url)
        return tab

    yield go
    context.close()
    assert [error for error in tab.errors if not error.endswith(f"/{tab.may_fail}")] == []
    assert tab.requested
    assert [url for url in tab.requested if not re.match(r"http://127\.0\.0\.1:\d+/|data:", url)] == []


@pytest.fixture(scope="module")
def hostile(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a classifier whose names are markup, with an optional column and a free text."""
    bundle = tmp_path_factory.mktemp("hostile")
    columns = (
        Column(name=NUMBER, type="number", required=False),
        Column(name=TEXT, type="category", required=True),
        Column(name=PROTO, type="number", required=True, minimum=-1),
        Column(name=CHOICE, type="category", required=False, values=CHOICES),
    )
    schema = Schema(kind="classification", key=(PROTO,), target=TARGET, classes=CLASSES, columns=columns)
    number = FeatureReference(edges=(0.0,), counts=(1, 1), missing=0)
    text = FeatureReference(values=CHOICES, counts=(1, 1), missing=0)
    features = {column.name: number if column.type == "number" else text for column in columns}
    share = 1 / (1 + math.exp(-1))
    golden = Golden(rows=({TEXT: "x", PROTO: 1.0},), predictions=((share, 1 - share),))
    for name, content in {
        SCHEMA: schema,
        REFERENCE: Reference(features=features, prediction=dict.fromkeys(CLASSES, number)),
        GOLDEN: golden,
    }.items():
        (bundle / name).write_text(content.model_dump_json())
    (bundle / MODEL).write_bytes(classifier().SerializeToString())
    with serve(bundle) as server:
        yield server


def classifier() -> onnx.ModelProto:
    """Return the graph of softmax(±(number + proto / 2)). A missing number counts as 0."""
    weights = np.array([[1, -1], [0.5, -0.5]], dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["numbers"], ["missing"]),
            helper.make_node("Where", ["missing", "zero", "numbers"], ["known"]),
            helper.make_node("MatMul", ["known", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["prediction"], axis=1),
        ],
        "model",
        [
            helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info("categories", TensorProto.STRING, [None, 2]),
        ],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.float32(0), "zero")],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


def record_schema(server: Server) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    schema: dict[str, Any] = document["components"]["schemas"]["Record"]
    return schema


def test_the_form_starts_with_the_example_and_shows_its_prediction(tab: Open, server: Server) -> None:
    opened = tab(server.url)
    page = opened.page
    expect(page.get_by_role("heading", level=1)).to_have_text("Price")
    example = record_schema(server)["examples"][0]
    assert len(example) == 16
    for name, value in example.items():
        label = name.capitalize().replace("_", " ")
        shown = opened.labelled(label).input_value()
        assert shown == (f"{value:.10g}" if isinstance(value, float) else value), name
    expect(page.locator("form").get_by_text("1800 to 2030")).to_be_visible()
    assert opened.ask().request.post_data_json == example
    answer = httpx.post(f"{server.url}/predict", json=example)
    price = page.locator("data")
    expect(price).to_have_text(f"{answer.json()['prediction']:,.0f}")
    assert float(price.get_attribute("value") or "") == answer.json()["prediction"]
    bundle = answer.headers["slipway-bundle"]
    expect(page.get_by_role("status")).to_contain_text(re.compile(rf"Bundle {bundle[:12]} answered in \d+\sms\."))
    expect(page.locator("dl")).to_contain_text(f"Answered bymodelBundle{bundle}")


def test_axe_finds_no_violation(tab: Open, server: Server) -> None:
    """The page is checked when it opens, with a prediction, and with an error. /docs is the page of Swagger UI."""
    opened = tab(server.url)
    opened.may_fail = "predict"
    assert violations_in_every_view(opened.page) == []
    opened.ask()
    expect(opened.page.locator("data")).to_be_visible()
    assert violations_in_every_view(opened.page) == []
    opened.labelled("Rooms").fill("many")
    opened.ask()
    expect(opened.page.locator("[aria-invalid]")).to_have_count(1)
    assert violations_in_every_view(opened.page) == []


def test_another_record_gets_another_prediction(tab: Open, server: Server) -> None:
    opened = tab(server.url)
    page = opened.page
    opened.ask()
    first = page.locator("data").text_content() or ""
    example = opened.labelled("Living area sqft").input_value()
    opened.labelled("Stories").select_option("two")
    opened.labelled("Sale date").fill("1997-05-01")
    opened.labelled("Living area sqft").fill(" 2.5e3 ")
    with page.expect_response("**/predict") as waiting:
        page.keyboard.press("Enter")
    sent = waiting.value.request.post_data_json
    assert (sent["stories"], sent["sale_date"], sent["living_area_sqft"]) == ("two", "1997-05-01", 2500)
    expect(page.locator("data")).not_to_have_text(first)
    page.get_by_role("button", name="Example").click()
    expect(opened.labelled("Living area sqft")).to_have_value(example)


def test_the_page_shows_the_provenance(tab: Open, serve: Serve, server: Server, tmp_path: Path) -> None:
    bundle = httpx.get(f"{server.url}/version").json()["provenance"]["bundle"]
    provenance = tmp_path / "provenance.json"
    provenance.write_text(f'{{"bundle": "{bundle}", "data": "da7a", "commit": "c0ffee"}}')
    with serve(server.bundle, SLIPWAY_PROVENANCE=str(provenance)) as told:
        page = tab(told.url).page
        expect(page.locator("dl")).to_contain_text(f"Bundle{bundle}Datada7aCommitc0ffeeCommitted atnot recorded")


def test_every_fault_is_shown_at_its_field(tab: Open, server: Server) -> None:
    opened = tab(server.url)
    opened.may_fail = "predict"
    page = opened.page
    wrong = {"Lot size sqft": ("-3", "greater than"), "Rooms": ("many", "number"), "Year built": ("", "required")}
    for label, (value, _) in wrong.items():
        opened.labelled(label).fill(value)
    assert opened.ask().status == 422
    for label, (_, said) in wrong.items():
        faulty = opened.labelled(label)
        expect(faulty).to_have_attribute("aria-invalid", "true")
        expect(faulty).to_have_accessible_description(re.compile(said))
    expect(page.locator("[aria-invalid]")).to_have_count(3)
    expect(opened.labelled("Lot size sqft")).to_be_focused()
    expect(page.get_by_role("status")).to_have_text("Correct the marked fields and try again.")
    for label in wrong:
        opened.labelled(label).fill("1900")
    opened.labelled("Rooms").fill("7")
    assert opened.ask().status == 200
    expect(page.locator("[aria-invalid]")).to_have_count(0)
    expect(page.locator("data")).to_be_visible()


def test_an_incomplete_date_is_not_sent(tab: Open, server: Server) -> None:
    opened = tab(server.url)
    opened.labelled("Sale date").press("Delete")
    opened.page.get_by_role("button", name="Predict").click()
    expect(opened.labelled("Sale date")).to_be_focused()
    expect(opened.labelled("Sale date")).to_have_accessible_description(re.compile("Complete it"))
    assert f"{server.url}/predict" not in opened.requested


def test_another_problem_is_shown_as_a_sentence(tab: Open, server: Server) -> None:
    opened = tab(server.url)
    opened.may_fail = "predict"
    status = opened.page.get_by_role("status")
    busy = {"status": 503, "headers": {"Retry-After": "7"}, "json": {"detail": "Too much to do."}}
    for answer, said in (
        (lambda route: route.fulfill(**busy), "Too much to do. Wait 7 s first."),
        (lambda route: route.fulfill(status=502, body="<html>"), "The server answered 502 Bad Gateway."),
        (lambda route: route.abort(), "The server cannot be reached; try again."),
    ):
        opened.page.route("**/predict", answer)
        opened.page.get_by_role("button", name="Predict").click()
        expect(status).to_have_text(said)
    opened.page.route(
        "**/predict",
        lambda route: route.fulfill(headers={"slipway-bundle": "f" * 32}, json={"prediction": 0.123456789}),
    )
    opened.ask()
    expect(opened.page.locator("data")).to_have_text("0.12346")
    expect(status).to_contain_text("Bundle ffffffffffff answered")
    expect(status).to_contain_text("Another model is served now; reload the page")


def test_a_form_that_cannot_be_loaded_shows_one_sentence(tab: Open, server: Server) -> None:
    opened = tab("about:blank")
    opened.may_fail = "openapi.json"
    opened.page.route("**/openapi.json", lambda route: route.fulfill(status=500))
    opened.page.goto(server.url)
    expect(opened.page.get_by_role("status")).to_have_text(
        "The form cannot be loaded (openapi.json: 500); reload the page."
    )


def test_the_page_works_behind_a_prefix(tab: Open, server: Server) -> None:
    def strip(route: Route) -> None:
        assert "/models/price/" in route.request.url
        route.fulfill(response=route.fetch(url=route.request.url.replace("/models/price/", "/")))

    opened = tab("about:blank")
    opened.page.route("**", strip)
    opened.page.goto(f"{server.url}/models/price/")
    opened.ask()
    expect(opened.page.locator("data")).to_be_visible()
    for link in opened.page.get_by_role("navigation").get_by_role("link").all():
        assert httpx.get(f"{server.url}/{link.get_attribute('href')}").status_code == 200


def test_names_are_never_markup(tab: Open, hostile: Server) -> None:
    opened = tab(hostile.url)
    page = opened.page
    expect(page.get_by_role("heading", level=1)).to_have_text(TARGET)
    for name in (NUMBER, TEXT):
        expect(opened.labelled(name)).to_have_count(1)
    expect(opened.labelled("ToString").locator("option")).to_have_text(["", *CHOICES])
    assert opened.ask().request.post_data_json == {TEXT: "x", PROTO: 1}
    expect(page.locator("data")).to_have_text(CLASSES[0])
    opened.labelled(NUMBER).fill("-3")
    opened.labelled(TEXT).fill('"<i>')
    opened.labelled("ToString").select_option(CHOICES[0])
    assert opened.ask().request.post_data_json == {NUMBER: -3, TEXT: '"<i>', PROTO: 1, CHOICE: CHOICES[0]}
    expect(page.locator("data")).to_have_text(CLASSES[1])
    expect(page.get_by_role("listitem")).to_have_text([f"{CLASSES[1]}99.3%", f"{CLASSES[0]}0.7%"])
    widths = page.locator(".bar i").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    assert widths == pytest.approx([99.33, 0.67], abs=0.01)
    opened.labelled(TEXT).fill("")
    opened.may_fail = "predict"
    opened.labelled("Proto").fill("-2")
    assert opened.ask().status == 422
    expect(opened.labelled(TEXT)).to_be_focused()
    expect(page.locator("[aria-invalid]")).to_have_count(2)
    expect(page.locator("img, b, main script")).to_have_count(0)


def test_the_page_may_run_nothing_but_its_own_script(server: Server) -> None:
    headers = httpx.get(server.url).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert headers["x-content-type-options"] == "nosniff"


def test_the_documentation_sends_requests(tab: Open, server: Server) -> None:
    opened = tab(f"{server.url}/docs")
    for route in ("/predict", "/invocations", "/v2/models/model/infer"):
        operation = opened.page.locator(".opblock-post", has=opened.page.locator(f"[data-path='{route}']"))
        operation.get_by_role("button").first.click()
        operation.get_by_role("button", name="Try it out").click()
        with opened.page.expect_response(f"**{route}") as answered:
            operation.get_by_role("button", name="Execute").click()
        assert answered.value.status == 200
        expect(operation.locator(".live-responses-table .response-col_status").last).to_have_text("200")


def test_the_documentation_shows_names_as_text(tab: Open, hostile: Server) -> None:
    page = tab(f"{hostile.url}/docs").page
    expect(page.get_by_text("/predict", exact=True)).to_be_visible()
    expect(page.locator(".info")).to_contain_text(TARGET)
    expect(page.locator("img[src=x]")).to_have_count(0)


def test_vectors_are_json_and_images_are_files(tab: Open, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "dark.png").write_bytes(arrays.encoded(arrays.PIXELS * 0))
    (tmp_path / "bundle").mkdir()
    with serve(arrays.write_bundle(tmp_path / "bundle")) as server:
        opened = tab(server.url)
        assert opened.ask().request.post_data_json == arrays.ROW
        opened.labelled("Embedding").fill("[1, 1, 1, 1]")
        preview = opened.page.locator("form img")
        before = preview.get_attribute("src")
        opened.labelled("Photo").set_input_files(tmp_path / "dark.png")
        expect(preview).not_to_have_attribute("src", before or "")
        assert opened.ask().json() == {"prediction": 1 + 1 + 1 + 1 + 4.5 + 2}
        opened.may_fail = "predict"
        opened.labelled("Embedding").fill("[1, 2")
        assert opened.ask().status == 422
        expect(opened.labelled("Embedding")).to_be_focused()
        opened.page.get_by_role("button", name="Example").click()
        assert opened.ask().request.post_data_json == arrays.ROW


def test_booleans_are_choices(tab: Open, serve: Serve, tmp_path: Path) -> None:
    bundle = odd.write_bundle(tmp_path)
    schema = Schema.model_validate_json((bundle / SCHEMA).read_text())
    columns = tuple(
        each.model_copy(update={"boolean": True}) if each.name in (odd.AREA, "rooms") else each
        for each in schema.columns
    )
    (bundle / SCHEMA).write_text(schema.model_copy(update={"columns": columns}).model_dump_json())
    row = odd.ROW | {odd.AREA: False, "rooms": True}
    golden = Golden(rows=(row,), predictions=((odd.expected(row),),))
    (bundle / GOLDEN).write_text(golden.model_dump_json())
    with serve(bundle) as server:
        opened = tab(server.url)
        assert opened.ask().json() == {"prediction": odd.expected(row)}
        opened.labelled(odd.AREA.capitalize()).select_option("true")
        opened.labelled("Rooms").select_option("")
        asked = opened.ask()
        assert asked.request.post_data_json == {name: row[name] for name in row if name != "rooms"} | {odd.AREA: True}
        assert asked.status == 200
