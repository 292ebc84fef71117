"""The openvswitch driver in a process of its own inside a host: a line of JSON in, a line out.

{"apply": {kind: {id: [version, body]}}} | {"answers": {"network <id> <address>": files} or null while the control plane is down}
| {"agents": true} | {"rings": true} (how often it rang since last asked) | {"rss": true} (KiB)
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from nacre.node.wires.driver import ControlPlaneDown, Document
from nacre.node.wires.openvswitch import OpenVSwitchWires


class Remote:
    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, Any] | None = {}
        self.rings = 0
        self.wires = OpenVSwitchWires(folder, self.lookup, lambda *left: 404)
        self.wires.recover()
        self.wires.watch(self.ring)

    def ring(self) -> None:
        self.rings += 1

    def lookup(self, kind: str, id_: str, address: str) -> dict[str, Any] | None:
        if self.answers is None:
            raise ControlPlaneDown("nobody answers")
        files = self.answers.get(f"{kind} {id_} {address}")
        return files and {"server_id": "s", "project_id": "p", "files": files}

    def do(self, order: dict[str, Any]) -> Any:
        if "apply" in order:
            wanted = {
                kind: {id_: Document(kind, id_, version, body) for id_, (version, body) in documents.items()}
                for kind, documents in order["apply"].items()
            }
            began = time.monotonic()
            applied = self.wires.apply(wanted)
            return {"applied": applied, "seconds": time.monotonic() - began}
        if "answers" in order:
            self.answers = order["answers"]
            return True
        if "rings" in order:
            rings, self.rings = self.rings, 0
            return rings
        if "rss" in order:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        return dict(self.wires.agents())


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    remote = Remote(Path(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer: Any = {"value": remote.do(json.loads(line))}
        except Exception as error:
            logging.exception("order failed")
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    remote.wires.close()


if __name__ == "__main__":
    main()
