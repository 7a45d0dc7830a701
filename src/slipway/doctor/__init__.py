"""Check the configuration of a fork, and print a fix for each problem."""
