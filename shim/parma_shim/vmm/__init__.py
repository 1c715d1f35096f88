"""QEMU: command line, process, and the machine that both make."""
