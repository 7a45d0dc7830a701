"""From the image to the answers: registry, overlays, agents, and what runs."""

import re
from pathlib import Path

import requests

from slipway import artifacts
from slipway.doctor.context import ANSWER_TIMEOUT_SECONDS, Fork, edit, edit_line, program_output, repository_at
from slipway.doctor.result import Finding, holds, missing, unknown
from slipway.errors import InputError
from slipway.integrations.git import Snapshot, known
from slipway.release.history import OVERLAYS, environments, live
from slipway.release.rollout import namespace_of
from slipway.release.version_probe import ask

AGENTS = Path("kustomize/agents")
FOLLOWED = re.compile(r"^(?:\s*repoURL:|  url:|    -) ((?:https?|ssh)://\S+|git@\S+)", re.MULTILINE)
"""The address of a repository, in a file of an agent."""
OWNERS = Path(".github/CODEOWNERS")
EXAMPLE = re.compile(r"[\w./-]*\b(?:your-team/[\w.-]+|example\.(?:com|org|net)\b)|[\w.-]+\.example\b")
"""An address that this template has as an example."""


def release_image(fork: Fork) -> Finding:
    if fork.params.release.image:
        return holds(f"Images go to {fork.params.release.image}.")
    return missing(
        f"{artifacts.PARAMS}: `release.image` is null, so merging ships nothing.",
        f"perl -pi -e 's|^  image: null|  image: {_image(fork)}|' {artifacts.PARAMS}",
    )


def registry(fork: Fork) -> Finding:
    """Whether the registry of `release.image` speaks the protocol of one; it may ask for a login."""
    image, command = fork.params.release.image, edit(artifacts.PARAMS, "image:")
    if image is None:
        return unknown("Not seen, as `release.image` does not say which.", command)
    host = host_of(image)
    scheme = "http" if re.match(r"(localhost|127\.0\.0\.1)(:|$)", host) else "https"
    url = f"{scheme}://{'registry-1.docker.io' if host == 'docker.io' else host}/v2/"
    try:
        status = requests.get(url, timeout=ANSWER_TIMEOUT_SECONDS, allow_redirects=False).status_code
    except requests.RequestException as error:
        return missing(f"{url} does not answer ({type(error).__name__}); `release.image` is {image}.", command)
    if status not in (200, 401):
        return missing(f"{url} answers {status}, as no registry does; `release.image` is {image}.", command)
    return holds(f"{url} answers as a registry does.")


def host_of(image: str) -> str:
    """The registry that an image is pushed to; without a host in its name, it is Docker Hub."""
    first = image.partition("/")[0]
    return first if first == "localhost" or re.search(r"[.:]", first) else "docker.io"


def example_hosts(fork: Fork) -> Finding:
    """In what a cluster is given, and in params.yaml; comments may have them."""
    found = [
        (file, number, match[0])
        for file in (artifacts.PARAMS, *sorted(Path("kustomize").rglob("*.yaml")))
        if AGENTS not in file.parents
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (match := EXAMPLE.search(re.sub(r"(^|\s)#.*", "", line)))
    ]
    if not found:
        return holds("No overlay and no parameter has an example's address.")
    file, number, text = found[0]
    command = edit_line(file, number)
    if text.startswith("ghcr.io/your-team/"):
        files = " ".join(sorted({str(file) for file, *_ in found}))
        command = f"perl -pi -e 's|ghcr.io/your-team/[\\w.-]+|{_image(fork)}|' {files}"
    elif file.name == "host.yaml":
        command = "slipway init --staging-host HOST --production-host HOST"
    places = ", ".join(f"{text} ({file}, line {number})" for file, number, text in found[:3])
    return missing(f"An example's address is still in use: {places}.", command)


def agents(fork: Fork) -> Finding:
    """Whether an agent would follow this repository: all addresses in a folder of kustomize/agents/ are its own."""
    if fork.params.release.deploy == "kubectl":
        return holds("release.deploy is kubectl, so no agent is needed.")
    followed = {folder.name: _followed(folder) for folder in sorted(AGENTS.glob("*/"))}
    mine, urls = fork.repository, sorted(set().union(*followed.values()))
    if mine is None and not any(map(EXAMPLE.search, urls)):
        return unknown(f"{AGENTS}/ follows {', '.join(urls)}; whether rightly, origin does not say.", "git remote -v")
    for name, each in followed.items():
        if each and {repository_at(fork.server, url) for url in each} == {mine}:
            return holds(f"{name} would follow {mine}.")
    edits = "; ".join(f"s|\\Q{url}\\E|{fork.server}/{fork.name}|" for url in urls)
    words = f"{AGENTS}/ follows {', '.join(urls) or 'nothing'}, and not {mine or 'this fork'}."
    return missing(words, f"perl -pi -e '{edits}' {AGENTS}/*/*.yaml")


def owners(fork: Fork) -> Finding:
    """Whose approval the rules of main ask for."""
    text = OWNERS.read_text(encoding="utf-8") if OWNERS.is_file() else ""
    rules = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if rules and "@YOUR-ORGANISATION" not in "".join(rules):
        return holds(f"{OWNERS} names who must approve.")
    command = f"perl -pi -e 's|^(?:# )?(/.*\\@)YOUR-ORGANISATION|${{1}}{fork.name.partition('/')[0]}|' {OWNERS}"
    if rules:
        return missing(f"{OWNERS} names @YOUR-ORGANISATION, which stands for teams of yours.", command)
    return unknown(f"Optional: {OWNERS} names nobody, so anybody with the right to write may approve.", command)


def cluster_access(fork: Fork) -> Finding:
    """Whether kubectl, as it is set here, may do what `slipway deploy` does where no agent does it."""
    if fork.params.release.deploy == "agent":
        return holds("An agent applies the overlays, so kubectl needs no access from here.")
    context = program_output(fork.environ, "kubectl", "config", "current-context")
    if not context:
        words = "release.deploy is kubectl, and kubectl has no context here."
        return missing(words, "kubectl config use-context CONTEXT")
    for environment in environments(known()):
        namespace = namespace_of(known(), environment) or "default"
        question = ("kubectl", "auth", "can-i", "patch", "deployments.apps", "--namespace", namespace)
        if program_output(fork.environ, *question, "--request-timeout=3s") != "yes":
            words = f"In the context {context}, kubectl may not write to {namespace}, or the cluster does not answer."
            return missing(words, " ".join(question))
    return holds(f"In the context {context}, kubectl may write to every environment.")


def answers(fork: Fork) -> Finding:
    """Whether each address of `release.urls` answers with what was released to that environment."""
    urls, now = fork.params.release.urls, known()
    command = edit(artifacts.PARAMS, "urls:")
    if not urls:
        return unknown("Optional: `release.urls` is empty, so no release waits until the new model answers.", command)
    for environment, url in urls.items():
        if environment not in environments(now):
            return missing(f"`release.urls` names {environment}, and {OVERLAYS}/ has no such environment.", command)
        if wrong := _differs(now, environment, url):
            return missing(f"{wrong}.", f"slipway status {environment} --live {url}")
    return holds(f"{' and '.join(urls.values())} answer with what was released there.")


def _differs(now: Snapshot, environment: str, url: str) -> str:
    """What is wrong with an answer; empty where nothing is, which holds too for the first release's."""
    try:
        answer, released = ask(url, ANSWER_TIMEOUT_SECONDS), live(now, environment)
    except InputError as error:
        return str(error).rstrip(".")
    if released is None or (answer.bundle, answer.commit) == (released.provenance.bundle, released.provenance.commit):
        return ""
    return (
        f"{url} answers with bundle {answer.bundle} of commit {answer.commit}, and released to {environment} "
        f"is {released.provenance.bundle} of {released.provenance.commit}"
    )


def _image(fork: Fork) -> str:
    """Where images go, or would if nobody says otherwise: to the packages of the repository, in lower case."""
    image = None if isinstance(fork.settings, InputError) else fork.settings.release.image
    return image or f"ghcr.io/{fork.name.lower() if fork.repository else fork.name}"


def _followed(folder: Path) -> set[str]:
    return {url for file in folder.glob("*.yaml") for url in FOLLOWED.findall(file.read_text(encoding="utf-8"))}
