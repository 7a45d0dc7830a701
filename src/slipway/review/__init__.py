"""Reproduce a pull request's verdict and report it: the report with charts, the comment and the required check."""
