"""A bundle, answering over HTTP. Imports nothing but what requirements/serve.txt has."""
