"""8. Analysis: arrays in, numbers out. No torch, no files."""
