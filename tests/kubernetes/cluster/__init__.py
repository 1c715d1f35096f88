"""A one-node Kubernetes cluster by kind, from Debian packages and Go modules alone.

Everything is built once into `${PARMA_CACHE:-~/.cache/parma}/kind`; the cluster runs in a dockerd of its own that
changes nothing of the host's firewall. `python -m tests.kubernetes.cluster --help` shows the commands.
"""
