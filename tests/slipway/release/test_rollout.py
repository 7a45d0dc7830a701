"""Without an agent, kubectl applies the overlay of main. A script replaces kubectl and logs its arguments."""

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from slipway.errors import CheckFailed
from slipway.provenance import Provenance
from slipway.release import canary, rollout
from slipway.release.candidate import Candidate
from slipway.release.component import Deployed
from slipway.release.history import PRODUCTION, release_file
from tests.slipway.conftest import Repository, Result
from tests.slipway.release.canary_objects import APPLIED, OF, of_image, with_status
from tests.slipway.release.conftest import Clock, flags, image

URL = "https://houses.example.com"
KUBECTL = """#!/bin/sh
echo "$@" >> {0}/logged
[ "$1" = apply ] && cp -r "$(dirname "$(dirname "$3")")" {0}/applied
cat "$KUBECONFIG" > {0}/config 2>/dev/null
stat -c %a "$KUBECONFIG" > {0}/mode 2>/dev/null
[ "$1" = kustomize ] && printf '%s' "$CANARY"
[ "$1 $2" = "get deployment/model" ] && cat {0}/deployment
[ "$1 $2" = "get rollouts.argoproj.io/model" ] && cat {0}/rollout
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
    assert "applied to house-prices" in result.out
    assert "rolled out" in result.out
    apply, _, status = (logged / "logged").read_text().splitlines()
    assert apply.startswith("apply --kustomize ")
    assert apply.endswith("kustomize/overlays/production")
    assert status == "rollout status deployment/model --timeout=600s --namespace house-prices"
    applied = yaml.safe_load((logged / "applied/overlays/production/release/kustomization.yaml").read_text())
    assert applied["images"][0]["digest"] == image(1).digest
    assert (logged / "config").read_text() == "a secret"
    assert (logged / "mode").read_text() == "600\n"
    assert "a secret" not in result.out + result.err


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize(("by", "first"), [("kubectl", "apply"), ("agent", "kustomize")])
def test_deploy_waits_for_the_rollout_of_a_canary(
    logged: Path,
    work: Repository,
    slipway: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    by: str,
    first: str,
) -> None:
    """The Deployment of a canary has no replicas, so only its Rollout shows if the release is complete or aborted."""
    if by == "agent":
        work.edit("params.yaml", "deploy: kubectl", "deploy: agent")
    monkeypatch.setenv("CANARY", "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\n")
    (logged / "deployment").write_text(json.dumps(APPLIED[OF] | of_image(1)))
    for status, code, words in (
        ({"phase": "Healthy"}, 0, "Argo Rollouts has promoted the canary"),
        ({"phase": "Degraded", "abort": True, "message": "metric errors"}, 1, "aborted the canary: metric errors"),
    ):
        (logged / "logged").unlink(missing_ok=True)
        (logged / "rollout").write_text(json.dumps(with_status(**status)[canary.ROLLOUT]))
        result = slipway("deploy", PRODUCTION)
        assert (result.code, words in result.out + result.err) == (code, True), result.out + result.err
        assert "not checked" not in result.out
        lines = (logged / "logged").read_text().splitlines()
        assert lines[0].startswith(first)
        assert not any(line.startswith("rollout status") for line in lines)
        assert all(line.endswith("--namespace house-prices") for line in lines if line.startswith("get"))


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


def wait_for_canary(monkeypatch: pytest.MonkeyPatch, until: float, aborts: bool) -> str:
    """Wait for a release of which two thirds of the pods answer until a time. Then all or none have the new model."""
    clock, chance = Clock(), random.Random(3)
    new, old = (Provenance(bundle=name, commit=name, created="2026-11-26") for name in ("new", "old"))

    def ask(url: str) -> Provenance:
        assert url == URL
        share = 2 / 3 if clock.now < until else 1 - aborts
        return new if chance.random() < share else old

    monkeypatch.setattr(rollout, "time", clock)
    monkeypatch.setattr(rollout, "ask", ask)
    return rollout._wait(URL, Deployed(image(1), new, None), 600)


def test_deploy_does_not_take_a_canary_for_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the canary is aborted, the release fails. The workflow Ship then rolls it back and opens an issue."""
    with pytest.raises(CheckFailed, match="does not answer with bundle new after 600 s"):
        wait_for_canary(monkeypatch, 240, aborts=True)


def test_deploy_waits_until_the_canary_is_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = re.search(r"(\d+) s later", wait_for_canary(monkeypatch, 240, aborts=False))
    assert seconds
    assert 240 <= int(seconds[1]) < 260
