"""The stub's guest side. The release image has no such package, and so cannot be made to use it."""
