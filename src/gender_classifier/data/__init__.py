"""What one stage hands to the next: the archive, images, the manifest, arrays; readers of labelled sets."""
