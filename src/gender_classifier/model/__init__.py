"""The table of networks, inference, pretrained weights and the model file."""
