"""Without an agent, kubectl applies the overlay of main. A script replaces kubectl and logs its arguments."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from slipway.release.candidate import Candidate
from slipway.release.history import PRODUCTION, release_file
from tests.slipway.conftest import Repository, Result
from tests.slipway.release.conftest import flags, image

KUBECTL = """#!/bin/sh
echo "$@" >> {0}/logged
[ "$1" = apply ] && cp -r "$(dirname "$(dirname "$3")")" {0}/applied
cat "$KUBECONFIG" > {0}/config 2>/dev/null
stat -c %a "$KUBECONFIG" > {0}/mode 2>/dev/null
[ "$1" != "$FAILS" ] || {{ echo "error: timed out waiting" >&2; exit 1; }}
"""


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kubectl"
    folder.mkdir()
    (folder / "kubectl").write_text(KUBECTL.format(folder))
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBE_CONFIG", "a secret")
    return folder


@pytest.fixture
def released(work: Repository, offer: Callable[[str], Candidate], slipway: Callable[..., Result]) -> None:
    offer("one")
    work.edit("params.yaml", "deploy: agent", "deploy: kubectl")
    assert slipway("promote", PRODUCTION, *flags(1)).code == 0


@pytest.mark.usefixtures("released")
def test_deploy_applies_the_overlay_of_main_and_waits(logged: Path, slipway: Callable[..., Result]) -> None:
    Path(release_file(PRODUCTION)).write_text("not the file of main")
    result = slipway("deploy", PRODUCTION)
    assert result.code == 0, result.err
    assert "applied to house-prices, and rolled out" in result.out
    apply, status = (logged / "logged").read_text().splitlines()
    assert apply.startswith("apply --kustomize ")
    assert apply.endswith("kustomize/overlays/production")
    assert status == "rollout status deployment/model --timeout=600s --namespace house-prices"
    applied = yaml.safe_load((logged / "applied/overlays/production/release/kustomization.yaml").read_text())
    assert applied["images"][0]["digest"] == image(1).digest
    assert (logged / "config").read_text() == "a secret"
    assert (logged / "mode").read_text() == "600\n"
    assert "a secret" not in result.out + result.err


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize(
    ("fails", "code", "words"), [("rollout", 1, "does not become healthy"), ("apply", 2, "timed out")]
)
def test_deploy_fails_if_kubectl_does(
    logged: Path, slipway: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, fails: str, code: int, words: str
) -> None:
    assert logged
    monkeypatch.setenv("FAILS", fails)
    result = slipway("deploy", PRODUCTION)
    assert (result.code, words in result.err) == (code, True), result.err
