"""9. Study: what to run, running it, what came out."""
