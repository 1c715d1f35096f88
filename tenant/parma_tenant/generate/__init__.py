"""From what a tenant wants to run to the policy that allows exactly that."""
