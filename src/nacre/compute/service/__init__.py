"""Verbs of compute, a module a resource."""
