"""What a user writes down: container-group files and Kubernetes manifests, read into one model."""
