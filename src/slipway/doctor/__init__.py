"""Check the configuration of a fork, and name a fix for each problem."""
