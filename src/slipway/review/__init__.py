"""Reproduce a pull request's verdict, and show it in a report with charts, a comment and the required check."""
