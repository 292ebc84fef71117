"""Disks of guests on one machine: `image_cache` makes bases of images, `file` makes a guest's disks over them, `config_drive` the
one that tells it who it is."""
