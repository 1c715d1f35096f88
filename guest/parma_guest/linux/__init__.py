"""The kernel's interfaces, one module each: thin, named as in the kernel's headers, imported when first needed."""
