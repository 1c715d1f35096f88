"""Standard streams between containerd's FIFOs, files and programs and the channel."""
