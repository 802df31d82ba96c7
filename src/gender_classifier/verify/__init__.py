"""Stage verify: decide which images are fit to use, and why the others are not."""
