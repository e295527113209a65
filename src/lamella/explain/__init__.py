"""What a finished run looked at, and what tuning moved: class activation maps, CKA, localisation."""
