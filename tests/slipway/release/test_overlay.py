"""Overlays that people wrote: what has to change changes, and nothing else."""

import re
import time
from dataclasses import astuple, replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from slipway.errors import InputError
from slipway.release.overlay import Image, Origin, read_image, read_origin, set_image, set_origin
from slipway.yaml_in_place import LIMIT

WHERE = "kustomize/overlays/staging/kustomization.yaml"
D1, D2 = "sha256:" + "1a" * 32, "sha256:" + "2b" * 32
A = Image("ghcr.io/team/model", "sha-0a", D1)
B = Image("localhost:5000/model", "1234e56", D2)
NOTHING = Origin(None, None, None, None, None)
FIRST = Origin("b1", "d1", "c1", "1", "first")
RELEASE = """\
# Who is annotated.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: model
spec:
  template:
    metadata:
      annotations:
        slipway/bundle: "none"  # the model
        slipway/data: 'none'
        slipway/commit: none
        slipway/registry-version: "none"
        # Why it ships.
        slipway/verdict: "none"
    spec: {}
"""


def edited(text: str, image: Image) -> str:
    return set_image(text.encode(), image, WHERE).decode()


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


FRESH = f'{{name: model, newName: "{A.name}", newTag: "{A.tag}", digest: "{D1}"}}'
# Each text, and what it becomes with A.
EXAMPLES = {
    "values, comments and keys in any order": (
        '# top\nimages:\n  - digest: "x"  # pinned\n    # which\n    newTag: old # why\n    name: model\n'
        "    # last\n    newName: 'n'\n# bottom\n",
        f'# top\nimages:\n  - digest: "{D1}"  # pinned\n    # which\n    newTag: sha-0a # why\n    name: model\n'
        "    # last\n    newName: 'ghcr.io/team/model'\n# bottom\n",
    ),
    "only a name": (
        "images:\n- name: model # it\n- name: other\n  newTag: 1.0\n",
        f'images:\n- name: model # it\n  newName: "ghcr.io/team/model"\n  newTag: "sha-0a"\n  digest: "{D1}"\n'
        "- name: other\n  newTag: 1.0\n",
    ),
    "flow on one line": (
        "images: [{name: model, newTag: x}] # c\n",
        f'images: [{{name: model, newTag: sha-0a, newName: "ghcr.io/team/model", digest: "{D1}"}}] # c\n',
    ),
    "flow on several lines": (
        "images: [\n  {\n    name: model,\n    newTag: 'x', # tag\n  }, # m\n]\n",
        "images: [\n  {\n    name: model,\n    newTag: 'sha-0a', "
        f'newName: "ghcr.io/team/model", digest: "{D1}", # tag\n  }}, # m\n]\n',
    ),
    "JSON": (
        '{"images":[{"name":"model","newTag":"x","newName":"y","digest":"z"}]}',
        f'{{"images":[{{"name":"model","newTag":"sha-0a","newName":"ghcr.io/team/model","digest":"{D1}"}}]}}',
    ),
    "flow entries in a block list": (
        "images:\n    - {name: other}\n",
        f'images:\n    - {{name: other}}\n    - name: model\n      newName: "ghcr.io/team/model"\n'
        f'      newTag: "sha-0a"\n      digest: "{D1}"\n',
    ),
    "no images, no end of line": (
        "resources:\n- a\n# end",
        f"resources:\n- a\nimages: [{FRESH}]\n# end",
    ),
    "no images, in flow": (
        "{resources: [a],\n  kind: K,\n}\n",
        f"{{resources: [a],\n  kind: K, images: [{FRESH}],\n}}\n",
    ),
    "null images": ("images: null # none yet\nkind: K\n", f"images: [{FRESH}] # none yet\nkind: K\n"),
    "images without a value": ("images:\n\n# none: yet\nkind: K", f"images: [{FRESH}]\n\n# none: yet\nkind: K"),
    "nothing else": ("images:", f"images: [{FRESH}]"),
    "null images in flow": ("{images: ~}", f"{{images: [{FRESH}]}}"),
    "no images in brackets": ("images: [ ]", f"images: [ {FRESH}]"),
    "a tag that is an anchor": (
        'images:\n  - name: model\n    newTag: &t "x"\n  - {name: o, newTag: *t}\n',
        f'images:\n  - name: model\n    newTag: &t "sha-0a"\n    newName: "ghcr.io/team/model"\n    digest: "{D1}"\n'
        "  - {name: o, newTag: *t}\n",
    ),
    "a tag that is an alias": (
        "images:\n  - {name: o, newTag: &t x}\n  - newTag: *t  # the same\n    name: model\n",
        'images:\n  - {name: o, newTag: &t x}\n  - newTag: "sha-0a"  # the same\n    name: model\n'
        f'    newName: "ghcr.io/team/model"\n    digest: "{D1}"\n',
    ),
    "a list that is an alias": (
        "x-images: &i # - a\n  - name: model\n    newTag: x\nimages: *i\n",
        f'x-images: &i # - a\n  - name: model\n    newTag: sha-0a\n    newName: "ghcr.io/team/model"\n'
        f'    digest: "{D1}"\nimages: *i\n',
    ),
    "one more in a list that is an alias": (
        "x-images: &i # - a\n  - name: o\nimages: *i\n",
        f'x-images: &i # - a\n  - name: o\n  - name: model\n    newName: "ghcr.io/team/model"\n'
        f'    newTag: "sha-0a"\n    digest: "{D1}"\nimages: *i\n',
    ),
    "CRLF": (
        "images:\r\n- name: model\r\n  newTag: x\r\n",
        f'images:\r\n- name: model\r\n  newTag: sha-0a\r\n  newName: "ghcr.io/team/model"\r\n  digest: "{D1}"\r\n',
    ),
    "marks at both ends": (
        "\ufeff--- # é\nimages:\n  - name: model\n    newTag: 1.0\n...\n",
        '\ufeff--- # é\nimages:\n  - name: model\n    newTag: "sha-0a"\n    newName: "ghcr.io/team/model"\n'
        f'    digest: "{D1}"\n...\n',
    ),
    "explicit tags and null values": (
        "images:\n  - name: !!str model\n    newTag: !!str x\n    newName: # none\n    digest: ~\n",
        'images:\n  - name: !!str model\n    newTag: !!str sha-0a\n    newName: "ghcr.io/team/model" # none\n'
        f'    digest: "{D1}"\n',
    ),
    "a mark at the start of the first key": (
        "\ufeffkind: K",
        f"\ufeffkind: K\nimages: [{FRESH}]",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_only_what_has_to_change_changes(name: str) -> None:
    before, after = EXAMPLES[name]
    once = edited(before, A)
    assert once == after
    assert edited(once, A) == once
    # What stood there without quotes gets them for B, whose tag looks like a number, and keeps them.
    assert edited(edited(once, B), A) == re.sub(r": (&t |!!str )?sha-0a", r': \1"sha-0a"', once)
    assert read_image(once.encode(), WHERE) == A
    plain = next(entry for entry in load(once)["images"] if entry["name"] == "model")
    assert (plain["newName"], plain["newTag"], plain["digest"]) == (A.name, A.tag, A.digest)


def test_what_stands_there_already_stays() -> None:
    for before, _ in EXAMPLES.values():
        if (image := image_of(before)) is not None:
            assert edited(before, image) == before


def image_of(text: str) -> Image | None:
    try:
        return read_image(text.encode(), WHERE)
    except InputError:
        return None


@pytest.mark.parametrize(
    "tag",
    ["1234", "1e5", "0x10", "1_000", "012", "on", "No", "null", "2026-01-01", "1.30", "0b1", "0o7", "y", "1e_5", "0XF"],
)
def test_a_tag_that_is_a_number_to_some_reader_gets_quotes(tag: str) -> None:
    text = edited("images:\n- name: model\n  newTag: sha-1\n", replace(A, tag=tag))
    assert f'newTag: "{tag}"' in text


@pytest.mark.parametrize("tag", ["sha-0a", "v1.2.3", "latest", "nope", "x_1-"])
def test_a_tag_that_is_text_to_every_reader_needs_no_quotes(tag: str) -> None:
    text = edited("images:\n- name: model\n  newTag: sha-1\n", replace(A, tag=tag))
    assert f"newTag: {tag}\n" in text


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("kind: K\n", None),
        ("images:\n", None),
        ("images: []\n", None),
        ("images: [{name: other, newTag: x}]\n", None),
        ("images: [{name: model}]\n", None),
        ("images: [{name: model, newTag: ''}]\n", None),
        ("images: [{name: model, newTag: x, newName: m}]\n", Image("m", "x", None)),
        (f"images: [{{name: model, newName: m, digest: '{D1}'}}]\n", Image("m", "", D1)),
    ],
)
def test_an_entry_can_say_less(text: str, image: Image | None) -> None:
    assert read_image(text.encode(), WHERE) == image
    if image is not None:
        assert edited(text, image) == text
        assert image_of(edited(edited(text, A), image)) == image


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"images: \xff", "byte 8 is not UTF-8"),
        ("images: [\n", "line 2: not one document of YAML"),
        ("a: \x00", "not YAML"),
        ("a: 1\n---\nb: 1\n", "line 2: not one document of YAML"),
        ("", "does not consist of keys and values"),
        ("- a\n", "does not consist of keys and values"),
        ("a: 1\nimages: []\nimages: []\n", "line 3: `images` stands there twice"),
        ("images:\n  - {name: model, name: model}\n", "line 2: `name` stands there twice"),
        ("images: {name: model}\n", "line 1: `images` is not a list"),
        ("images: x\n", "line 1: `images` is not a list"),
        ("images:\n  - model\n", "line 2: `images.0` has no keys"),
        ("images:\n  - name: 1\n", "line 2: what `name` says is not text"),
        ("images:\n  - newTag: x\n", "line 2: an entry of `images` has no `name`"),
        ("images:\n  - name: model\n  - name: model\n", "line 3: `images` has a second entry for `model`"),
        ("images:\n  - name: model\n    newTag: {a: b}\n", "line 3: what `newTag` says is not text"),
        ("a: *b\n", "line 1: nothing has the anchor `&b`"),
        ("a: &b x\n<<: {c: d}\n", "line 2: merge keys (`<<`) are not supported"),
        ("images:\n  - name: model\n    newTag: |-  # why\n      x\n", "`images.0.newTag` cannot be edited safely"),
        ("a: " + "[" * 2_000, "nested too deeply"),
        ("# " + "x" * LIMIT, f"more than {LIMIT} bytes"),
        ("images: [{name: model, newTag}]\n", "cannot be edited safely"),
        ("images: [name: model]\n", "cannot be edited safely"),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str | bytes, words: str) -> None:
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(InputError) as caught:
        set_image(content, A, WHERE)
    assert words in str(caught.value)
    assert WHERE in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("newTag: 1.0", "line 3: what `newTag` says is not text"),
        ("newTag: a b", f"{WHERE}: 'a b' is not the tag of an image"),
        ("newName: A:b", "'A:b' is not the name of an image"),
        ("digest: sha256:12", "'sha256:12' is not the digest of an image"),
    ],
)
def test_what_cannot_be_an_image_is_refused_and_can_be_set(text: str, words: str) -> None:
    content = f"images:\n  - name: model\n    {text}\n".replace("newName", "newTag: x\n    newName")
    with pytest.raises(InputError, match=re.escape(words)):
        read_image(content.encode(), WHERE)
    assert image_of(edited(content, A)) == A


@pytest.mark.parametrize(
    ("name", "tag", "digest"),
    [
        ("team/Model", "x", None),
        ("", "x", None),
        ("a" * 256, "x", None),
        ("a/../b", "x", None),
        ("a:5000", "x", None),
        ("a", "", None),
        ("a", "-x", None),
        ("a", "x" * 129, None),
        ("a", "x\n", None),
        ("a", "x", ""),
        ("a", "x", "sha256:" + "A" * 64),
        ("a", "x", "sha512:" + "a" * 64),
    ],
)
def test_an_image_is_checked(name: str, tag: str, digest: str | None) -> None:
    with pytest.raises(InputError, match="is not the"):
        Image(name, tag, digest)


@pytest.mark.parametrize("name", ["a", "localhost:5000/a", "GHCR.io/team/a__b-c.d", "[::1]:5000/a", "a/b/c"])
def test_names_of_images(name: str) -> None:
    assert Image(name, "x", D1).name == name


def test_aliases_of_aliases_are_not_followed() -> None:
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 60)]
    text = "\n".join(["a0: &a0 x", *levels, "images:", "- &m {name: model, newTag: x, more: [*m, *a59]}", ""])
    started = time.perf_counter()
    assert image_of(edited(text, A)) == A
    assert time.perf_counter() - started < 5


def test_an_origin_is_set_and_read() -> None:
    text = RELEASE.encode()
    assert read_origin(text, WHERE) == NOTHING
    assert set_origin(text, NOTHING, WHERE) == text
    first = set_origin(text, FIRST, WHERE)
    assert first.decode() == (
        RELEASE.replace('bundle: "none"', 'bundle: "b1"')
        .replace("'none'", "'d1'")
        .replace("commit: none", "commit: c1")
        .replace('version: "none"', 'version: "1"')
        .replace('verdict: "none"', 'verdict: "first"')
    )
    assert read_origin(first, WHERE) == FIRST
    assert set_origin(first, NOTHING, WHERE) == text


def test_annotations_that_are_missing_are_added() -> None:
    text = "spec: {template: {metadata: {annotations: {}}}}\n"
    assert read_origin(text.encode(), WHERE) == NOTHING
    once = set_origin(text.encode(), FIRST, WHERE)
    assert list(load(once.decode())["spec"]["template"]["metadata"]["annotations"].values()) == list(astuple(FIRST))
    some = RELEASE.replace("        slipway/data: 'none'\n", "").encode()
    again = set_origin(some, FIRST, WHERE)
    assert b'slipway/verdict: "first"\n        slipway/data: "d1"\n    spec: {}\n' in again
    back = set_origin(again, NOTHING, WHERE)
    assert set_origin(back, FIRST, WHERE) == again


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spec:\n  template: {}\n", "has no `spec.template.metadata.annotations`; restore it with `git checkout"),
        (RELEASE.replace("annotations:", "labels:"), "has no `spec.template.metadata.annotations`"),
        ("spec: {template: {metadata: {annotations: }}}", "line 1: `spec.template.metadata.annotations` has no keys"),
        ("spec: {template: {metadata: {annotations: [a]}}}", "has no keys"),
        (RELEASE.replace("'none'", "1.0"), "line 11: what `slipway/data` says is not text to YAML"),
        (RELEASE.replace("'none'", '"a\\nb"'), "cannot be an annotation"),
    ],
)
def test_annotations_that_cannot_be_read_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_origin(text.encode(), WHERE)
    assert words in str(caught.value)
    assert WHERE in str(caught.value)


@pytest.mark.parametrize("value", ["", "none", " x", "a\nb", "\x7f"])
def test_an_origin_is_checked(value: str) -> None:
    with pytest.raises(InputError, match="cannot be an annotation"):
        replace(FIRST, verdict=value)


TAGS = st.sampled_from(["sha-0a", "x", "v1.2", "1234", "1e5", "on", "0x1f", "1.0", "null", "2026-01-01"])
IMAGES = st.builds(Image, st.sampled_from(["m", "ghcr.io/team/m", "localhost:5000/m"]), TAGS, st.sampled_from([D1, D2]))
DOUBLE, SINGLE, BARE, TAGGED, ANCHORED = '"{}"', "'{}'", "{}", "!!str '{}'", '&a{{}} "{}"'
COMMENTS = ["", "  # é", " # - a: {b", " #"]


@st.composite
def overlays(draw: st.DrawFn) -> tuple[str, str, str, bool]:
    """What stands before the model's entry, the entry, what stands behind it, and whether a value has no quotes."""
    pick = lambda *choices: draw(st.sampled_from(choices))  # noqa: E731
    image, bare = draw(IMAGES), False
    keys = {"newName": image.name, "newTag": image.tag, "digest": image.digest}
    chosen = ["name", *draw(st.sets(st.sampled_from(list(keys))))]
    top = pick("", "\ufeff") + pick("", "# top\n") + pick("", "---\n", "--- # start\n")
    whole, entry_flow = pick("block", "block", "flow", "lines"), pick(True, False)
    indent = pick("", "  ", "    ")
    column = " " * (len(indent) + (pick(2, 3) if not entry_flow else 2))
    pairs = []
    for number, key in enumerate(draw(st.permutations(chosen))):
        value = keys.get(key, "model")
        styles = [DOUBLE, SINGLE, TAGGED, ANCHORED]
        if re.fullmatch("[a-z/.:]+|sha.*|x|v1.2", value) and value != "null" and value != "on":
            styles.append(BARE)
        style = pick(*styles)
        bare |= style == BARE
        written = style.replace("{{}}", str(number)).replace("{}", value)
        pairs.append(pick("{}: {}", '"{}": {}').replace("{}", key, 1).replace("{}", written))
    if whole == "block" and not entry_flow:
        gap = "\n" + pick("", f"{column}# between\n", "\n") + column
        dash = "-" + " " * (len(column) - len(indent) - 1)
        entry = dash + gap.join(pair + pick(*COMMENTS) for pair in pairs)
    elif whole == "lines":
        entry = "{\n   " + ",\n   ".join(pairs) + pick("", ",", ", # last", " # last") + "\n  }"
    else:
        entry = "{" + ", ".join(pairs) + pick("", ",", " ") + "}"
        entry = f"- {entry}" if whole == "block" else entry
    others = ["{name: o1, newTag: 1.0}", "{name: o2, newName: &o x}"]
    before, after = others[: pick(0, 1)], others[1:][: pick(0, 1)]
    if whole == "block":
        opening = "images:" + pick(*COMMENTS) + "\n" + "".join(f"{indent}- {other}\n" for other in before) + indent
        closing = pick(*COMMENTS) if entry_flow else ""
        closing += "".join(f"\n{indent}- {other} # o" for other in after) + "\n"
    else:
        line = "\n  " if whole == "lines" else ""
        opening = "images: [" + line + "".join(f"{other}, {line}" for other in before)
        closing = "".join(f", {other}" for other in after) + pick("", ",") + line + "]" + pick(*COMMENTS) + "\n"
    opening = top + pick("", "resources: [a] # é\n", "resources:\n- a\n") + opening
    closing += pick("", "kind: 'K' # - x\n", "patches:\n    - patch: |-\n        a\n\n        # b\n")
    closing += pick("", "# bottom\n", "...\n")
    closing = closing if draw(st.booleans()) else closing.rstrip()
    if pick(True, False, False):
        return opening.replace("\n", "\r\n"), entry.replace("\n", "\r\n"), closing.replace("\n", "\r\n"), bare
    return opening, entry, closing, bare


def effective(data: Any) -> Any:
    """What an overlay says, the model's entry apart, with what holds where a key says nothing."""
    entry = next(each for each in data["images"] if each["name"] == "model")
    return data, (entry.pop("newName", "model"), entry.pop("newTag", ""), entry.pop("digest", None))


@settings(max_examples=300, deadline=None)
@given(overlays(), IMAGES, IMAGES)
def test_every_style_is_kept(overlay: tuple[str, str, str, bool], first: Image, second: Image) -> None:
    before, entry, after, bare = overlay
    text = before + entry + after
    once = edited(text, first)
    assert once.startswith(before)
    assert once.endswith(after)
    assert re.findall("#[^\r\n]*", once) == re.findall("#[^\r\n]*", text)
    assert effective(load(once)) == (effective(load(text))[0], astuple(first))
    assert effective(yaml.load(once, yaml.CSafeLoader))[1] == astuple(first)  # as YAML 1.1
    assert image_of(once) == first
    assert edited(once, first) == once
    back = edited(edited(once, second), first)
    if bare:  # What a tag like a number gave quotes keeps them.
        once, back = back, edited(edited(back, second), first)
    assert back == once


SYNTAX = ["&a", "*a", "!!", ": ", "- ", "<<: ", *"\n\t{}[]|>#%?'\"\u2028"]
MUTATIONS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 3),
        st.binary(max_size=2) | st.sampled_from([each.encode() for each in SYNTAX]),
    ),
    max_size=4,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([text for text, _ in EXAMPLES.values()] + [RELEASE]), MUTATIONS)
def test_a_broken_file_is_refused_or_set(text: str, mutations: list[tuple[float, int, bytes]]) -> None:
    content = text.encode()
    for place, gone, new in mutations:
        start = int(place * len(content))
        content = content[:start] + new + content[start + gone :]
    for set_it, read_it, value in ((set_image, read_image, A), (set_origin, read_origin, FIRST)):
        try:
            once = set_it(content, value, WHERE)
        except InputError:
            continue
        assert read_it(once, WHERE) == value
        assert set_it(once, value, WHERE) == once
