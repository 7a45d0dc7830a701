"""The whole loop on one machine, by the workflow files and verbs of this repository."""
