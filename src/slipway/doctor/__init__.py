"""What a fork needs, looked at one by one: what holds, what is missing, and the command that mends it."""
