"""A pod in its utility VM: what it may ask for, how it is brought up and taken down."""
