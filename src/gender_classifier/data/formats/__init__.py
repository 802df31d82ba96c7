"""Containers of images and zips, walked before anything is decoded or unpacked."""
