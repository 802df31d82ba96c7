"""Stage preprocess: pack images into arrays of three splits."""
