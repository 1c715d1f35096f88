"""Parma on a Kubernetes node: put there by a DaemonSet, kept while it runs, taken away when it is deleted.

The DaemonSet's image has the payload at the path that it will have on the node (`shim/deploy/image`), and the node's
root at /host. Nothing of this is imported by the shim.
"""
