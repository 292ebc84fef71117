"""Verbs on metadata definitions."""
