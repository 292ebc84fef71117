"""Verbs of identity, a module a resource."""
