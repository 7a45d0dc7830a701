"""Fakes of the services that one machine does not have: GitHub, a container engine, and a cluster with its agent."""
