"""Stage train: fit the network, keep the best epoch."""
