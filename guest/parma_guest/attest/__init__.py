"""Attestation reports of this machine."""
