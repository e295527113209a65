"""5. Features: a slide's tiles as embeddings, in a file that the field's other tools read too."""
