"""The release component: written whole, read back, and rejected if something else wrote it."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slipway.errors import InputError
from slipway.provenance import Provenance
from slipway.release.component import Deployed, Image, read, render
from slipway.release.history import release_file
from tests.slipway.conftest import ROOT
from tests.slipway.manifests.rendering import RELEASED, kustomize

WHERE = release_file("staging")
LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=30)
PROVENANCES = st.builds(
    Provenance,
    bundle=LINE,
    data=LINE | st.none(),
    commit=LINE | st.none(),
    verdict=LINE,
    reason=LINE | st.just("e" * 500),
)


def test_component_contains_image_and_annotations() -> None:
    assert render(RELEASED).decode() == (
        "# Written by `slipway promote` and `slipway rollback`. The next release replaces it, so do not edit it.\n"
        "apiVersion: kustomize.config.k8s.io/v1alpha1\n"
        "kind: Component\n"
        "images:\n"
        "  - name: model\n"
        '    newName: "ghcr.io/team/houses"\n'
        '    newTag: "sha-0123456789ab"\n'
        f'    digest: "sha256:{"0a" * 32}"\n'
        "  - name: model-batch\n"
        '    newName: "ghcr.io/team/houses"\n'
        '    newTag: "sha-0123456789ab-batch"\n'
        f'    digest: "sha256:{"0b" * 32}"\n'
        "commonAnnotations:\n"
        '  slipway/bundle: "1e5"\n'
        '  slipway/data: "012"\n'
        '  slipway/commit: "0123"\n'
        '  slipway/created: "2026-11-24"\n'
        '  slipway/verdict: "ship"\n'
        '  slipway/reason: "it is: \\"better\\""\n'
        '  slipway/registry-version: "3"\n'
    )


@given(PROVENANCES, st.none() | st.just("12"), st.none() | st.just(RELEASED.batch))
def test_component_is_read_without_loss(provenance: Provenance, version: str | None, batch: Image | None) -> None:
    deployed = replace(RELEASED, provenance=provenance, registry_version=version, batch=batch)
    written = render(deployed)
    assert read(written, WHERE) == deployed
    assert render(deployed) == written
    assert yaml.safe_load(written)["commonAnnotations"]["slipway/bundle"] == provenance.bundle  # another reader of YAML


@pytest.mark.parametrize(
    "reason", ['"quotes" and \\', "a: b # c", "- x", "1e5", "null", "é 日本", "two\nlines", "\t\x1b"]
)
def test_kustomize_reads_any_text(reason: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    deployed = replace(RELEASED, provenance=Provenance(bundle="b", reason=reason))
    (tmp_path / WHERE).write_bytes(render(deployed))
    objects = yaml.safe_load_all(kustomize(tmp_path / "kustomize/overlays/staging"))
    (pods,) = [each["spec"]["template"] for each in objects if each["kind"] == "Deployment"]
    assert pods["metadata"]["annotations"]["slipway/reason"] == reason


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_nothing_is_released_in_this_repository(environment: str) -> None:
    assert read((ROOT / release_file(environment)).read_bytes(), WHERE) is None


WRITTEN = render(RELEASED).decode()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"",
        b"[]",
        b"images: [",
        b"images: []",
        WRITTEN.replace("name: model", "name: other").encode(),
        WRITTEN.replace("images:\n", "images:\n  - name: model\n").encode(),
        WRITTEN.replace('"sha-0123456789ab"', "12").encode(),
        WRITTEN.replace("sha-0123456789ab", "a b").encode(),
        WRITTEN.replace("    newName", "    other").encode(),
        WRITTEN.replace("slipway/bundle", "other/bundle").encode(),
        WRITTEN.replace('"1e5"', "1e5").encode(),
        WRITTEN.partition("commonAnnotations")[0].encode(),
        WRITTEN.partition("  slipway")[0].encode(),
    ],
)
def test_error_names_a_damaged_component(content: bytes) -> None:
    with pytest.raises(InputError, match=re.escape(f"{WHERE} is not as `slipway promote` writes it")):
        read(content, WHERE)


@pytest.mark.parametrize(
    ("name", "tag", "digest"),
    [
        ("team/Model", "x", None),
        ("", "x", None),
        ("a:b", "x", None),
        ("a b", "x", None),
        ("a", "", None),
        ("a", "-x", None),
        ("a", "x" * 129, None),
        ("a", "x\n", None),
        ("a", "x", ""),
        ("a", "x", "sha256:" + "A" * 64),
        ("a", "x", "sha512:" + "a" * 64),
    ],
)
def test_invalid_image_is_refused(name: str, tag: str, digest: str | None) -> None:
    with pytest.raises(InputError, match="is not an image"):
        Image(name, tag, digest)


@pytest.mark.parametrize("name", ["a", "localhost:5000/a", "ghcr.io/team/a__b-c.d", "a/b/c"])
def test_valid_image_name_is_accepted(name: str) -> None:
    assert Deployed(Image(name, "x", None), RELEASED.provenance, None).image.name == name
