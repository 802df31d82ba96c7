"""Checks of image and zip containers before anything is decoded or unpacked."""
