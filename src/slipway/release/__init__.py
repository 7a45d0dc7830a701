"""Release: from a merged change to its image, its commit on `main`, and a rollback."""
