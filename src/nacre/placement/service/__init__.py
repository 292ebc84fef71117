"""Verbs on providers, what they offer, and what is allocated."""
