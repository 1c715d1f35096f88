"""From the first fork to the last file: the actions that containerd runs, and the process that serves."""
