"""Tests of Parma in a real cluster, and the cluster itself."""
