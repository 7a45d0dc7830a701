"""A fake of GitHub."""

from tests.slipway.review.conftest import github

__all__ = ["github"]
