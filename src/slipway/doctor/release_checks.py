"""Check the settings for releases: image, overlays, agents, access to the cluster, and running servers."""

import re
from pathlib import Path

import requests
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway import artifacts
from slipway.bundle import SCHEMA
from slipway.doctor.context import ANSWER_TIMEOUT_SECONDS, Fork, program_output, repository_at, setting
from slipway.doctor.result import Finding, missing, ok, optional
from slipway.errors import InputError
from slipway.integrations.git import Snapshot, known
from slipway.integrations.image_registry import api_of, host_of
from slipway.monitoring.manifests import COMPONENTS, PREDICTION_LOG
from slipway.monitoring.manifests.prediction_log import component, settings_patch
from slipway.release.base_images import base_images
from slipway.release.history import OVERLAYS, environments, live, overlay_file
from slipway.release.rollout import namespace_of
from slipway.release.version_probe import ask

AGENTS = Path("kustomize/agents")
RUNNER = Path("kustomize/runner")
FOLLOWED = re.compile(r"^(?:\s*repoURL:|  url:|    -) ((?:https?|ssh)://\S+|git@\S+)", re.MULTILINE)
"""Matches the address of a repository in an agent's manifest."""
LOGGED = re.compile(r"^\s*- \S*components/prediction-log\b", re.MULTILINE)
"""Matches the component of the prediction log in an overlay, if it is not a comment."""
EXAMPLE = re.compile(r"[\w./-]*\b(?:your-team/[\w.-]+|example\.(?:com|org|net)\b)|[\w.-]+\.example\b")
"""Matches an example address, which a fork has to replace."""


def image(fork: Fork) -> Finding:
    """Check that `release.image` is set, and that its registry answers. A registry that requires a login passes too."""
    name = fork.params.release.image
    if name is None:
        example = f"ghcr.io/{fork.repository.lower() if fork.repository else 'OWNER/NAME'}"
        words = "`release.image` is null, so a merge releases nothing."
        return missing(words, place=f"{setting('image')} An example is {example}.")
    url = api_of(host_of(name))
    try:
        status = requests.get(url, timeout=ANSWER_TIMEOUT_SECONDS, allow_redirects=False).status_code
    except requests.RequestException as error:
        words = f"`release.image` is {name}, and {url} does not answer ({type(error).__name__})."
        return missing(words, place=setting("image"))
    if status not in (200, 401):
        words = f"`release.image` is {name}, and {url} answers {status}, which a registry does not."
        return missing(words, place=setting("image"))
    return ok(f"`release.image` is {name}, and its registry answers.")


def bases(_: Fork) -> Finding:
    """Check that the base images of the Dockerfile are pinned by digest."""
    floating = [base.name for base in base_images() if not base.digest]
    if floating:
        words = f"{' and '.join(floating)} in the Dockerfile can change from build to build, without a digest."
        return optional(words, "slipway image pin")
    return ok("The base images of the Dockerfile are pinned by digest.")


def template_values(fork: Fork) -> Finding:
    """Check that no example address is in use. With `deploy: agent`, check that an agent follows this repository."""
    found = [
        f"{match[0]} ({file}, line {number})"
        for file in (artifacts.PARAMS, *sorted(Path("kustomize").rglob("*.yaml")))
        if AGENTS not in file.parents and _is_used(file)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (match := EXAMPLE.search(re.sub(r"(^|\s)#.*", "", line)))
    ]
    if found:
        words = f"Example addresses are still in use: {', '.join(found[:3])}{', and more' if found[3:] else ''}."
        if any("host.yaml" in each for each in found):
            return missing(words, "slipway init --staging-host HOST --production-host HOST")
        return missing(words, place="Edit these lines.")
    if fork.params.release.deploy == "agent" and not _followed_by_an_agent(fork):
        repository = fork.repository or "OWNER/NAME"
        words = f"No agent in {AGENTS} follows {fork.repository or 'this repository'}."
        return missing(words, f"slipway init --repository {fork.server}/{repository}")
    return ok("No example address is in use, and an agent follows this repository if `release.deploy` needs one.")


def _is_used(file: Path) -> bool:
    """Return whether deployments use a file. They use host.yaml only if the overlay includes `ingress`."""
    if file.name != "host.yaml":
        return RUNNER not in file.parents
    overlay = file.with_name("kustomization.yaml").read_text(encoding="utf-8")
    return bool(re.search(r"^\s*- \S*components/ingress\b", overlay, re.MULTILINE))


def _followed_by_an_agent(fork: Fork) -> bool:
    """Return whether the manifests of an agent contain the address of this repository, and no other address."""
    for folder in AGENTS.glob("*/"):
        urls = {url for file in folder.glob("*.yaml") for url in FOLLOWED.findall(file.read_text(encoding="utf-8"))}
        if fork.repository and {repository_at(fork.server, url) for url in urls} == {fork.repository}:
            return True
    return False


def prediction_log(fork: Fork) -> Finding:
    """Check that the overlays have the settings in `prediction_log`, and that the champion has `private` marks."""
    settings, name = fork.params.prediction_log, "`prediction_log` of params.yaml"
    try:
        compiled = YAML(typ="safe").load((COMPONENTS / PREDICTION_LOG / "kustomization.yaml").read_bytes())
        patch = COMPONENTS / PREDICTION_LOG / "settings.yaml"
        found = YAML(typ="safe").load(patch.read_bytes()) if settings else None
    except (OSError, YAMLError):
        compiled, found = None, None
    if compiled != component(settings) or found != (settings and settings_patch(settings)):
        return missing(f"{COMPONENTS / PREDICTION_LOG} differs from {name}.", "make manifests")
    if settings is None:
        return ok(f"Requests are not logged, because {name} is not set.")
    overlays = [Path(overlay_file(environment)) for environment in environments(known())]
    if not any(LOGGED.search(overlay.read_text(encoding="utf-8")) for overlay in overlays):
        words = f"{name} is set, but no overlay has the component {COMPONENTS / 'prediction-log'}."
        return missing(words, place=f"Uncomment it in {overlays[0]}." if overlays else "")
    schema = artifacts.CHAMPION / SCHEMA
    if schema.is_file() and '"private"' not in schema.read_text(encoding="utf-8"):
        words = f"{name} is set, but no column of the champion has a mark `private`, so no row is logged."
        return missing(words, place="Mark the features in src/model/schema.py, and release the bundle.")
    return ok(f"The overlays have the settings in {name}.")


def cluster_access(fork: Fork) -> Finding:
    """Check that kubectl can write to every environment. This access is needed only with `release.deploy: kubectl`."""
    if fork.params.release.deploy == "agent":
        return ok("`release.deploy` is agent, so kubectl needs no access to the cluster.")
    context = program_output(fork.environ, "kubectl", "config", "current-context")
    if not context:
        return missing("`release.deploy` is kubectl, and kubectl has no context.", "kubectl config use-context CONTEXT")
    for environment in environments(known()):
        namespace = namespace_of(known(), environment) or "default"
        question = ("kubectl", "auth", "can-i", "patch", "deployments.apps", "--namespace", namespace)
        if program_output(fork.environ, *question, "--request-timeout=3s") != "yes":
            words = f"In the context {context}, kubectl cannot write to {namespace}, or the cluster does not answer."
            return missing(words, " ".join(question))
    return ok(f"In the context {context}, kubectl can write to every environment.")


def urls(fork: Fork) -> Finding:
    """Check that the server at each address in `release.urls` has the model that was released to its environment."""
    addresses, now = fork.params.release.urls, known()
    if not addresses:
        words = "`release.urls` is empty, so a release does not wait until the new model answers."
        return optional(words, place=setting("urls"))
    for environment, url in addresses.items():
        if environment not in environments(now):
            words = f"`release.urls` has {environment}, which is not an environment in {OVERLAYS}."
            return missing(words, place=setting("urls"))
        if difference := _difference(now, environment, url):
            return missing(f"{difference}.", f"slipway status {environment} --live {url}")
    return ok(f"{' and '.join(addresses.values())} answer with the released model.")


def _difference(now: Snapshot, environment: str, url: str) -> str:
    """Return a sentence about the difference between a running server and the release. Return "" if they are equal."""
    try:
        answer, released = ask(url, ANSWER_TIMEOUT_SECONDS), live(now, environment)
    except InputError as error:
        return str(error).rstrip(".")
    if released is None or (answer.bundle, answer.commit) == (released.provenance.bundle, released.provenance.commit):
        return ""
    return (
        f"{url} answers with bundle {answer.bundle} of commit {answer.commit}, but the release of {environment} is "
        f"bundle {released.provenance.bundle} of commit {released.provenance.commit}"
    )
