"""What happens after the release: deliveries arrive, models decay."""
