"""Serve a bundle over HTTP. This package may import only the packages in requirements/serve.txt."""
