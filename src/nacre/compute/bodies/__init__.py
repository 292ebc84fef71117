"""Wire shapes of compute, a module a resource. Source: Compute API reference and its microversion history."""
