"""Check the secrets and variables of the workflows by their names. GitHub never returns the values of secrets."""

from github import GithubException

from slipway.doctor.context import Fork
from slipway.doctor.github import Api, Setting, listed, on_github, set_commands
from slipway.doctor.result import Finding, missing, ok, optional, unknown
from slipway.integrations import label_source
from slipway.integrations.image_registry import host_of
from slipway.integrations.query_source import PASSWORD, USER
from slipway.release.history import PRODUCTION, STAGING

AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
AZURE = ("AZURE_STORAGE_CONNECTION_STRING",)
STORAGE = {"s3": AWS, "s3a": AWS, "azure": AZURE, "abfs": AZURE, "abfss": AZURE, "az": AZURE, "adl": AZURE}
"""For each scheme of a storage address, the secrets that the workflows pass to DVC and fsspec."""
IDENTITIES = dict.fromkeys(("s3", "s3a"), "AWS_ROLE") | dict.fromkeys(("gs", "gcs"), "GOOGLE_PROVIDER")
IDENTITIES |= {scheme: "AZURE_CLIENT" for scheme, secrets in STORAGE.items() if secrets == AZURE}
"""For each scheme of a storage address, the variable that lets the workflows log in to the cloud without secrets."""
MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@on_github
def required(api: Api, fork: Fork) -> Finding:
    """Check that GitHub has all secrets and variables that the settings of this fork need."""
    urls = [fork.remote_url] if fork.params.ingest.query else [fork.remote_url, fork.params.ingest.source]
    schemes = {url.partition("://")[0] for url in urls if "://" in url}
    schemes -= _with_login(api, schemes)
    names = {name for scheme in schemes for name in STORAGE.get(scheme, ())}
    names |= {USER, PASSWORD} if fork.params.ingest.query else set()
    if fork.params.live and fork.params.live.labels_query:
        names |= {label_source.USER, label_source.PASSWORD}
    names |= {name for name in MLFLOW if fork.environ.get(name)}  # needed in workflows if this machine uses MLflow
    gone = api.not_set([*_registry(fork), *(("secret", name) for name in sorted(names))])
    if fork.params.release.deploy == "kubectl" and not _has_cluster(api):
        gone.append(("secret", "KUBE_CONFIG"))
    if gone:
        return missing(f"The workflows need settings that do not exist: {listed(gone)}.", set_commands(gone))
    if others := sorted(schemes - STORAGE.keys()):
        words = f"The workflows pass no secrets for {', '.join(others)}://."
        return unknown(words, place="docs/storage.md lists the storage that the workflows can read.")
    return ok("The workflows have all secrets and variables that the settings of this fork need.")


@on_github
def optional_settings(api: Api, fork: Fork) -> Finding:
    """Report the optional secrets and variables that are not set, each with the feature that it enables."""
    features = {
        MLFLOW[0]: "to record every model in MLflow",
        "PROMETHEUS_URL": "to detect drift",
        "ATTEST": "to attest images, if a private repository has GitHub Enterprise Cloud",
    }
    wanted = [
        *([] if fork.environ.get(MLFLOW[0]) else [("secret", MLFLOW[0])]),
        *([] if fork.params.drift.prometheus else [("secret", "PROMETHEUS_URL")]),
        *([("variable", "ATTEST")] if api.get().get("private") else []),
    ]
    if gone := api.not_set(wanted):
        words = ", ".join(f"{kind} {name} ({features[name]})" for kind, name in gone)
        return optional(
            f"Not set: {words}.", place="Set those that you need: gh secret set NAME, gh variable set NAME."
        )
    return ok("The workflows can record models, detect drift and attest images.")


def _registry(fork: Fork) -> list[Setting]:
    """Return the secrets and variables that the login to the image registry needs.

    An image at ghcr.io with the same owner as the repository needs none of them, because the workflow's own token can
    push it.
    """
    image, owner = fork.params.release.image, str(fork.repository).partition("/")[0].lower()
    if image is None or image.startswith(f"ghcr.io/{owner}/"):
        return []
    login = [("variable", "REGISTRY_USER"), ("secret", "REGISTRY_PASSWORD")]
    return login if host_of(image) == "ghcr.io" else [("variable", "REGISTRY"), *login]


def _with_login(api: Api, schemes: set[str]) -> set[str]:
    """Return the URL schemes, such as `s3`, that need no secret, because variables configure a login with OIDC."""
    wanted = schemes & IDENTITIES.keys()
    variables = api.existing("variable") if wanted else set()
    return {scheme for scheme in wanted if IDENTITIES[scheme] in variables}


def _has_cluster(api: Api) -> bool:
    """Return whether KUBE_CONFIG is a secret of the repository, or of the environments staging and production."""
    name = "KUBE_CONFIG"
    if name in api.existing("secret"):
        return True
    try:
        return all(name in api.names(f"/environments/{each}/secrets", "secrets") for each in (STAGING, PRODUCTION))
    except GithubException:  # the GitHub plan has no environments, or an environment is missing
        return False
