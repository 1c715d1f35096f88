"""The demo: a private containerd, images made from Debian packages, and the story that is told with them."""
