"""Disks of guests on one machine: `image_cache` makes bases of images, `file` makes a guest's disks over them."""
