"""What is installed beside the package, and how it is used as it is."""
