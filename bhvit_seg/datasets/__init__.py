"""Data sets, transforms, label checks and image files; importing it needs no other package."""
