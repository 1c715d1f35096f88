"""QEMU's monitor: typed commands over the `qemu.qmp` library."""
