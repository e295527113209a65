"""What `benchmarks/resources.py` measures, a file a subject; importing one registers its rows."""
