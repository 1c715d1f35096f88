"""What all sides of Parma agree on: protocols, formats and the evaluation of policies."""
