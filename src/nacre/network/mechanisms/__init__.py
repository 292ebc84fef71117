"""How hosts are wired: one module a mechanism driver."""
