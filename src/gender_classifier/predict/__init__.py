"""Inference with the exported model, without PyTorch."""
