"""Every verb against faults of the machine: full disks, refused folders, I/O errors, odd environments."""
