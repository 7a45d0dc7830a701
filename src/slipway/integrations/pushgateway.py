"""Push metrics to a Prometheus Pushgateway: https://github.com/prometheus/pushgateway."""

from prometheus_client import CollectorRegistry, push_to_gateway

from slipway.errors import InputError

TIMEOUT_SECONDS = 30


def push(address: str, job: str, registry: CollectorRegistry) -> None:
    """Replace all metrics of a job. Raises InputError if the Pushgateway does not accept them."""
    try:
        push_to_gateway(address, job, registry, timeout=TIMEOUT_SECONDS)
    except OSError as error:  # also HTTP errors
        raise InputError(
            f"The loss cannot be pushed to {address} ({getattr(error, 'reason', None) or error}); check "
            "`live.pushgateway` in params.yaml."
        ) from None
