"""Test that the model in src/model keeps `slipway.contract`. These tests run in every fork, with the fork's model."""
