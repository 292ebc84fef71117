"""Verbs in domain words; each opens and closes its transaction."""
