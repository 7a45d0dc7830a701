"""Tasks after a release: ingest new deliveries, detect drift and decay, and raise alerts."""
