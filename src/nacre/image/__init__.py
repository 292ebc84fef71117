"""Images: metadata in the database, data in files (store.py).

Other services ask `visible` (a user names an image), `by_id` (the system does), nodes fetch data through `for_node`, and `register`
makes the cloud's first image. A snapshot of a server is `begin_snapshot` in the verb that asks for it, its data `from_node`, and
`discard_snapshot` when it came to nothing; `old_images` (a module) is
what compute shows of images until 2.35, for the user. A backup holds the data of `with_data`; `restored` follows.
"""

from nacre.image.domain import Image
from nacre.image.fronts import compared, for_node, known, restored, visible, with_data
from nacre.image.service import old_images
from nacre.image.service.data import register
from nacre.image.service.snapshots import begin as begin_snapshot
from nacre.image.service.snapshots import discard as discard_snapshot
from nacre.image.service.snapshots import from_node, keep_newest
from nacre.image.tables import by_id

__all__ = ["Image", "begin_snapshot", "by_id", "compared", "discard_snapshot", "for_node", "from_node", "keep_newest", "known", "old_images",
           "register", "restored", "visible", "with_data"]  # fmt: skip
