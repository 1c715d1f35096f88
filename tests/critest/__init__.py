"""The CRI's conformance suite, run as it is against handler `parma` and against runc, under several containerds."""
