"""Handlers of compute, a module a resource: decode, one verb, render."""
