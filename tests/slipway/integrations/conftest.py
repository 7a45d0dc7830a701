"""A server that answers like GitHub's."""

from tests.slipway.review.conftest import github

__all__ = ["github"]
