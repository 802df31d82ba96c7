"""Stage preprocess: images become arrays in three splits."""
