"""Conformance of the model in src/model with `slipway.contract`. Runs in every fork, with the fork's model."""
