"""Images as a policy needs them: how they start, and the root hashes of their layers."""
