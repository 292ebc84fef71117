"""Handlers of identity, a module a resource: decode, one verb, render."""
