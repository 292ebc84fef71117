"""Guests on one machine. `driver` is the contract; `libvirt` and `fake` keep it."""
