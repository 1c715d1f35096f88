"""SEV-SNP formats: the attestation report and what surrounds it. Bytes only; nothing here judges."""
