"""Release a merged change: build its image, commit the release to `main`, and roll it back if needed."""
