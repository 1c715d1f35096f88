"""What a node adds to every container: versioned data files, which users can add to."""
