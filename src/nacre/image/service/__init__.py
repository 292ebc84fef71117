"""Verbs on images: their metadata, their members, their data."""
