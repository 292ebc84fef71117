"""Decode, one verb, render."""
