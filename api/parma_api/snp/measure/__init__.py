"""The launch digest of an SNP guest, from its inputs (SNP ABI, "PAGE_INFO"; attestation reference, section 11)."""
