"""The servers of tests/slipway/serving, for a Prometheus that scrapes them."""

from tests.slipway.serving.conftest import serve, served

__all__ = ["serve", "served"]
