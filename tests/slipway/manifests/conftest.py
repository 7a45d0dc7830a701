"""The servers of tests/serving, for a Prometheus that watches them."""

from tests.slipway.serving.conftest import serve, served

__all__ = ["serve", "served"]
