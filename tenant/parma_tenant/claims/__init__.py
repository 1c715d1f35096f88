"""Runtime claims: keys of a group, bound with a verifier's nonce by an attestation report; TLS and sealing upon them.

In the group `attester` makes evidence, `server` presents it; the relying party verifies with `client` and `evidence`.
"""
