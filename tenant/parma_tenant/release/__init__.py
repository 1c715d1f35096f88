"""What broker and sidecar agree on: the grammar of release policies, signed texts, wrapped keys (Azure Key Vault's
forms).
"""
