"""What is under way when a process is killed: each operation by its preparation, what a client does, and its end as the client sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crash.cloud import Cloud, Standing, until
from crash.directory import Directory
from crash.images import Images

NAME = "made"


@dataclass
class Operation:
    """`prepare()` gives the server that it is about (or nothing); `act(it)` asks and waits for the end; True when it was done, else why not."""

    prepare: Callable[[], str]
    act: Callable[[str], bool | str]


class World:
    """The operations on one cloud; whatever they made is gone after `clear`."""

    def __init__(self, cloud: Cloud, standing: Standing, address: str) -> None:
        self.cloud, self.standing, self.directory = cloud, standing, Directory(cloud)
        nothing = lambda: ""  # noqa: E731
        self.operations = {
            "create": Operation(nothing, lambda _: self.create()),
            "delete": Operation(self.active, self.delete),
            "resize": Operation(self.active, self.resize),
            "confirm": Operation(self.resized, lambda it: self.after_resize(it, "confirmResize", "2")),
            "revert": Operation(self.resized, lambda it: self.after_resize(it, "revertResize", "1")),
            "snapshot": Operation(self.active, self.snapshot),
            "router": Operation(nothing, lambda _: self.router()),
            "floating ip": Operation(nothing, lambda _: self.floating_ip()),
            **{f"delete {what}": Operation(self.directory.prepare, lambda _, what=what: self.directory.delete(what))  # type: ignore[misc]
               for what in ("project", "domain", "user", "role")},
            **{name: Operation(*each) for name, each in Images(cloud, standing, NAME, address).operations.items()},
        }

    # servers

    def _named(self) -> Any:
        return next(iter(self.cloud.get(f"/compute/v2.1/servers?name={NAME}")[1]["servers"]), None)

    def create(self) -> bool | str:
        self.cloud.do("POST", "/compute/v2.1/servers", {"server": {"name": NAME, **self.standing.order}}, self._named)
        shown = self._ends(self._named()["id"])
        return shown["status"] == "ACTIVE" or self._why(shown)

    def _ends(self, server_id: str) -> Any:
        def ended() -> Any:
            shown = self.standing.server(server_id)
            return shown is None or (shown["status"] != "BUILD" and shown["OS-EXT-STS:task_state"] is None and shown)

        return until(ended, "the end of it", describe=lambda: str(self.cloud.unrest()))

    def _why(self, shown: Any) -> str:
        why = str(shown.get("fault", {}).get("message", ""))
        assert why, f"{shown['status']} without a reason"
        return why

    def active(self) -> str:
        assert self.create() is True
        return str(self._named()["id"])

    def resized(self) -> str:
        made = self.active()
        assert self.resize(made) is True
        return made

    def _act(self, server_id: str, action: str, argument: Any) -> Any:
        """A client that has lost an answer sees by the server's state whether it began."""
        before = self._ends(server_id)["status"]

        def begun() -> bool:
            shown = self.standing.server(server_id)
            return shown["status"] != before or shown["OS-EXT-STS:task_state"] is not None

        self.cloud.do("POST", f"/compute/v2.1/servers/{server_id}/action", {action: argument}, begun)
        return self._ends(server_id)

    def delete(self, server_id: str) -> bool | str:
        shown = self.standing.server(server_id)
        if shown is not None:
            self.cloud.do("DELETE", f"/compute/v2.1/servers/{server_id}", done=lambda: self.standing.server(server_id) is None)
        shown = self._ends(server_id)
        return shown is True or self._why(shown)

    def resize(self, server_id: str) -> bool | str:
        shown = self._act(server_id, "resize", {"flavorRef": "2"})
        return shown["status"] == "VERIFY_RESIZE" or self._why(shown)

    def after_resize(self, server_id: str, action: str, flavor: str) -> bool | str:
        shown = self._act(server_id, action, None)
        if shown["status"] != "ACTIVE":
            return self._why(shown)
        guest = self.cloud.guests()[server_id]
        assert shown["flavor"]["original_name"] == flavor and guest.spec.memory_mb == shown["flavor"]["ram"] and guest.backup is None
        return True

    def snapshot(self, server_id: str) -> bool | str:
        self._act(server_id, "createImage", {"name": NAME})
        images = self._images()
        assert not images or images[0]["status"] == "active", images
        return bool(images) or "the image is gone"

    def _images(self) -> Any:
        return self.cloud.get(f"/image/v2/images?name={NAME}")[1]["images"]

    # networks

    def _only(self, kind: str, **fields: str) -> Any:
        query = "&".join(f"{name}={value}" for name, value in fields.items())
        return next(iter(self.cloud.get(f"/network/v2.0/{kind}s?{query}")[1][f"{kind}s"]), None)

    def router(self) -> bool | str:
        network, address, gateway = {"name": NAME}, {"ip_version": 4, "cidr": "172.16.7.0/24"}, {"network_id": self.standing.outside}
        self._make("network", network, name=NAME)
        inside = self._only("network", name=NAME)["id"]
        self._make("subnet", {"network_id": inside, **address}, network_id=inside)
        subnet = self._only("subnet", network_id=inside)["id"]
        self._make("router", {"name": NAME}, name=NAME)
        router = self._only("router", name=NAME)["id"]
        interface = {"device_id": router, "device_owner": "network:router_interface"}
        self.cloud.do("PUT", f"/network/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet}, lambda: self._only("port", **interface))
        self.cloud.do("PUT", f"/network/v2.0/routers/{router}", {"router": {"external_gateway_info": gateway}})
        self.cloud.rests()
        return {f"router-{router}.json", f"network-{inside}.json", f"dhcp-{inside}.json"} <= self.cloud.wires() or "it is not wired"

    def _make(self, kind: str, values: Any, **fields: str) -> None:
        self.cloud.do("POST", f"/network/v2.0/{kind}s", {kind: values}, lambda: self._only(kind, **fields))

    def floating_ip(self) -> bool | str:
        port = self.standing.port
        self._make("floatingip", {"floating_network_id": self.standing.outside, "port_id": port}, port_id=port)
        self.cloud.rests()
        return self._only("floatingip", port_id=port)["status"] == "ACTIVE" or "it is not wired"

    # afterwards

    def clear(self) -> None:
        """Deletes what an operation made."""
        self.directory.clear()
        if (server := self._named()) is not None:
            assert self.delete(server["id"]) is True
        for image in self._images():
            self.cloud.do("DELETE", f"/image/v2/images/{image['id']}")
        if floating := self._only("floatingip", port_id=self.standing.port):
            self.cloud.do("DELETE", f"/network/v2.0/floatingips/{floating['id']}")
        if router := self._only("router", name=NAME):
            for port in self.cloud.get(f"/network/v2.0/ports?device_id={router['id']}&device_owner=network:router_interface")[1]["ports"]:
                self.cloud.do("PUT", f"/network/v2.0/routers/{router['id']}/remove_router_interface", {"port_id": port["id"]})
            self.cloud.do("DELETE", f"/network/v2.0/routers/{router['id']}")
        if network := self._only("network", name=NAME):
            self.cloud.do("DELETE", f"/network/v2.0/networks/{network['id']}")
