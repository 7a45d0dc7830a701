"""What plays the parts that one machine does not have: a forge, a container engine, an agent and a Service."""
