"""What is really inside an image: run as a script, unprivileged, with the image as an open file.

`inspection.py <declared disk format> <path>` prints one JSON line: {"format", "virtual_size"} or {"refused": "one sentence"}. Nothing of the
image is trusted before this said what it is: a format that differs from the declared one, or a part that makes qemu read another file
(backing file, data file, foreign extent), is refused. It imports nothing of this program.
"""

import json
import os
import sys

# declared disk format -> formats that may be found; a partition table alone is still a raw disk
ACCEPTED = {
    "raw": {"raw", "gpt"},
    "iso": {"iso"},
    "qcow2": {"qcow2"},
    "qed": {"qed"},
    "vmdk": {"vmdk"},
    "vdi": {"vdi"},
    "vhd": {"vhd"},
    "vhdx": {"vhdx"},
    "ami": {"raw", "gpt"},
    "ari": {"raw", "gpt"},
    "aki": {"raw", "gpt"},
}
_FLAT = {"raw", "gpt", "iso"}


def inspect(declared: str, path: str) -> dict[str, object]:
    """The verdict about the file at `path`."""
    from oslo_utils.imageutils import format_inspector

    if declared not in ACCEPTED:
        return {"refused": f"images of format {declared} cannot be used for guests"}
    try:
        found = format_inspector.detect_file_format(path)
    except format_inspector.ImageFormatError as error:
        return {"refused": f"the image cannot be read: {error}"}
    name = "nothing known" if found is None else str(found)
    if found is None or name not in ACCEPTED[declared]:
        return {"refused": f"the image says it is {declared} but its content is {name}"}
    try:
        found.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        return {"refused": f"the image is not safe to use: {'; '.join(f'{key}: {why}' for key, why in error.failures.items())}"}
    size = os.stat(path).st_size if name in _FLAT else int(found.virtual_size)
    return {"format": name, "virtual_size": size}


if __name__ == "__main__":
    try:
        verdict = inspect(sys.argv[1], sys.argv[2])
    except Exception as error:
        verdict = {"refused": f"the image cannot be read: {type(error).__name__}: {error}"}
    print(json.dumps(verdict))
