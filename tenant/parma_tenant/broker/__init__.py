"""`parma broker`: an attestation service and a key broker, in the protocols of Microsoft Azure Attestation and Key
Vault.
"""
