"""Run the whole loop on one machine, with the workflow files and the verbs of this repository."""
