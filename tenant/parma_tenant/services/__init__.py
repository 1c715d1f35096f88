"""Services outside: how they are called; certificates and revocation lists, each with its own cache rules."""
