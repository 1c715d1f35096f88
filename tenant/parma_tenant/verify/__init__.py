"""Judgement of attestation reports: structure, certificates and chain, binding, field policy. Pure; time is given.

`verify` takes evidence and expectations and gives every check by name (docs/attestation-guide.md).
"""
