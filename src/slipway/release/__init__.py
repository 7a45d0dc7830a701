"""From a verdict to the live model: the champion and the registry."""
