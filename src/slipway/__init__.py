"""The machinery that ships the model: pipeline → review → release → serving → watch."""
