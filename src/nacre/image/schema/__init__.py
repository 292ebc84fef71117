"""What is on the wire of the Image API, as the JSON schemas that clients fetch from `/v2/schemas/...` and that their bodies are checked
against: one table is both."""

from nacre.image.schema import images, metadefs

SCHEMAS = {**images.SCHEMAS, **{f"metadefs/{name}": each for name, each in metadefs.SCHEMAS.items()}}
