"""The OCI document: read strictly, and written anew from judged values."""
