"""Run the whole loop on one machine, with the workflow files and the `slipway` verbs of this repository."""
