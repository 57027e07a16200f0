"""Locations of data, the images in them, and their decoding."""
