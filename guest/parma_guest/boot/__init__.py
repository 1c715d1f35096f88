"""What the agent does between its first statement and its first container."""
