"""The model in use, without PyTorch."""
