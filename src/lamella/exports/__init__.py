"""10. Exports: a model passed on, with what it was measured to be and what it may be used for."""
