"""The secrets and variables that the workflows are handed, by their names; GitHub tells nobody their values."""

from slipway.doctor.context import Fork
from slipway.doctor.github import Api, asked
from slipway.doctor.release_checks import host_of
from slipway.doctor.result import Finding, holds, missing, unknown
from slipway.release.history import PRODUCTION, STAGING

AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
AZURE = {"AZURE_STORAGE_CONNECTION_STRING"}
STORAGE = {"s3": AWS, "s3a": AWS, "azure": AZURE, "abfs": AZURE, "abfss": AZURE, "az": AZURE, "adl": AZURE}
"""What the workflows give to DVC and to fsspec, by the scheme of an address."""
MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@asked
def storage(api: Api, fork: Fork) -> Finding:
    """For the DVC remote and for the source of deliveries."""
    schemes = {url.partition("://")[0] for url in (fork.remote_url, fork.params.ingest.source) if "://" in url}
    wanted = {name for scheme in schemes for name in STORAGE.get(scheme, ())}
    names, command = api.lacking(secrets=wanted)
    if names:
        return missing(f"For {' and '.join(sorted(schemes))}:// there is no secret {names}.", command)
    if others := schemes - STORAGE.keys():
        words = f"The workflows hand on secrets of S3 and Azure, and not of {', '.join(sorted(others))}://."
        return unknown(words, "grep -n AZURE_STORAGE_CONNECTION_STRING .github/workflows/*.yml")
    return holds(f"There is {', '.join(sorted(wanted)) or 'none, and folders need none'}.")


@asked
def record(api: Api, fork: Fork) -> Finding:
    """For MLflow: whatever it takes here, the workflows need too."""
    here = [name for name in MLFLOW if fork.environ.get(name)]
    names, command = api.lacking(secrets=here or MLFLOW[:1])
    if not names:
        return holds(f"There is {', '.join(here or MLFLOW[:1])}.")
    if here:
        return missing(f"MLflow is used here, and there is no secret {names}.", command)
    return unknown(f"Optional: there is no secret {names}, so the workflows record nothing.", command)


@asked
def image_registry(api: Api, fork: Fork) -> Finding:
    """For any but ghcr.io, which takes the token of the workflow."""
    host = host_of(fork.params.release.image or "ghcr.io")
    if host == "ghcr.io":
        return holds("ghcr.io takes the token of the workflow.")
    names, command = api.lacking(secrets=["REGISTRY_PASSWORD"], variables=["REGISTRY", "REGISTRY_USER"])
    if names:
        return missing(f"To push to {host}, the workflows lack {names}.", command)
    return holds(f"There are a user and a password for {host}.")


@asked
def cluster(api: Api, fork: Fork) -> Finding:
    """Where no agent applies the overlays; each environment may have a secret of its own."""
    if fork.params.release.deploy == "agent":
        return holds("An agent applies the overlays, so there has to be none.")
    each = [api.names(f"/environments/{name}/secrets", "secrets") for name in (STAGING, PRODUCTION)]
    if "KUBE_CONFIG" in api.there("secrets") | set.intersection(*each):
        return holds("There is KUBE_CONFIG.")
    words = f"release.deploy is kubectl, and {STAGING} and {PRODUCTION} have no secret KUBE_CONFIG."
    return missing(words, "gh secret set KUBE_CONFIG < KUBECONFIG_FILE")


@asked
def monitoring(api: Api, fork: Fork) -> Finding:
    names, command = api.lacking(secrets=["PROMETHEUS_URL"])
    if fork.params.drift.prometheus or not names:
        return holds("`Monitor` knows which Prometheus to ask.")
    return unknown(f"Optional: there is no secret {names}, so `Monitor` looks at decay and not at drift.", command)


@asked
def attestation(api: Api, _: Fork) -> Finding:
    if not api.get().get("private") or "ATTEST" in api.there("variables"):
        return holds("Images are attested, as the repository is public or the variable ATTEST is set.")
    words = "Optional: the variable ATTEST is not set, so images of this private repository are not attested."
    return unknown(words, "gh variable set ATTEST --body true")
