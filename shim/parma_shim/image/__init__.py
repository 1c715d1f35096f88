"""A container's image: found at containerd, as the layers that the guest gets."""
