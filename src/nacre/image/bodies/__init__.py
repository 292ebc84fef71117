"""Wire shapes of the Image API."""
