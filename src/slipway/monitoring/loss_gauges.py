"""The loss on requests whose truth is known, as metrics for a Pushgateway. The analysis of a canary reads them."""

import math

from prometheus_client import CollectorRegistry, Gauge

from slipway.monitoring.live_performance import LivePerformance

ROWS = "slipway_live_loss_rows"
LOSS = "slipway_live_loss"
ERROR = "slipway_live_loss_standard_error"


def loss_gauges(bundles: tuple[LivePerformance, ...]) -> CollectorRegistry:
    """Return the loss, its standard error and the number of rows, by bundle and day.

    Days with a single known truth are left out, because one row has no standard error.
    """
    registry = CollectorRegistry()
    rows, loss, error = (
        Gauge(name, what, ("bundle", "day"), registry=registry)
        for name, what in (
            (ROWS, "Rows whose truth is known."),
            (LOSS, "Mean loss of these rows."),
            (ERROR, "Standard error of the mean loss."),
        )
    )
    for each in bundles:
        for day in each.days:
            if day.loss is None or day.standard_error is None or not math.isfinite(day.standard_error):
                continue
            rows.labels(each.bundle, day.value).set(day.known)
            loss.labels(each.bundle, day.value).set(day.loss)
            error.labels(each.bundle, day.value).set(day.standard_error)
    return registry
