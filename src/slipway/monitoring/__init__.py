"""After a release: new deliveries, drift, decay and alerts."""
