"""The account that a client of `nacre bench crash` keeps: what was acknowledged and is not so is told, and nothing else."""

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[2] / "bench"
_spec = importlib.util.spec_from_file_location("workload", BENCH / "workload.py")
assert _spec is not None and _spec.loader is not None
workload = importlib.util.module_from_spec(_spec)
sys.modules["workload"] = workload
_spec.loader.exec_module(workload)


class Cloud:
    """Ports by id -> name. `deaf`: does what it is asked, and the answer is lost."""

    def __init__(self) -> None:
        self.ports: dict[str, str] = {}
        self.deaf = False

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = self.patiently(method, path, body)
        if self.deaf:
            raise workload.NoAnswer(path)
        return answer

    def patiently(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        bare, _, query = path.partition("?name=")
        key = bare.rpartition("/")[2]
        if method == "POST":
            made = f"port-{len(self.ports)}"
            self.ports[made] = body["port"]["name"]
            return 201, {"port": {"id": made}}
        if query:
            return 200, {"ports": [{"id": id_} for id_, name in self.ports.items() if name == query]}
        found = self.ports.pop(key, None) if method == "DELETE" else self.ports.get(key)
        return (404 if found is None else 204 if method == "DELETE" else 200), None


def client(cloud: Cloud) -> Any:
    return workload.Client(cloud, workload.Site("image", ("1", "2"), "outside", "inside"), "c", random.Random(1), workload.Tally())


def test_nothing_is_lost_of_what_is_there_and_of_what_was_deleted() -> None:
    cloud = Cloud()
    one = client(cloud)
    kept, gone = one.make("port", {}), one.make("port", {})
    one.delete(gone)
    assert (set(one.there), one.gone, one.lost()) == ({kept}, {gone: "port"}, [])


def test_what_was_acknowledged_and_is_not_so_is_told() -> None:
    cloud = Cloud()
    one = client(cloud)
    kept, gone = one.make("port", {}), one.make("port", {})
    one.delete(gone)
    cloud.ports = {gone: "again"}
    assert sorted(told.split(" (")[0] for told in one.lost()) == [f"port {kept}", f"port {gone} was deleted and is there: 200"]


def test_an_answer_that_is_lost_promises_nothing_until_it_is_seen() -> None:
    cloud = Cloud()
    one = client(cloud)
    cloud.deaf = True
    made = one.make("port", {})
    assert made and set(one.there) == {made} and one.tally.counts["unanswered"] == 1
    one.delete(made)
    assert (one.there, one.gone, one.lost()) == ({}, {made: "port"}, [])
