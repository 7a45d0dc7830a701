"""Release models: build the image of a merged change, commit its release to `main`, and roll back a release."""
