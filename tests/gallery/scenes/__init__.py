"""What the commands of the gallery find, with something wrong, in the current folder."""
