"""Serve a bundle over HTTP. This package imports only the packages in requirements/serve.txt."""
