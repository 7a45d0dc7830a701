"""The loop on one machine, through the same verbs that people run."""
