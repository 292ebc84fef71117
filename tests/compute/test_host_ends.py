"""Deleting a compute service ends the certificate of its host; a refused deletion ends nothing."""

import pytest

from conftest import Running
from nacre import compute
from nacre.core import joining, node_api, nodes
from nacre.core.caller import System

WHO = System("req-end")


def test_a_deleted_service_ends_the_hosts_certificate(running: Running) -> None:
    with running.cloud.db.write(WHO) as tx:
        nodes.register(tx, "far")
        nodes.heard_of(tx, ["far"])
        compute.reported(tx, "far", {})
        admission = joining.admit(tx, "far")
    permit = joining.permit("far", admission)
    with running.http(**{"openstack-api-version": "compute 2.53"}) as http:
        (service,) = http.get("/compute/v2.1/os-services?host=far").json()["services"]
        still = http.delete(f"/compute/v2.1/os-services/{service['id']}")
        assert still.status_code == 409 and "still reports" in still.text
        with running.cloud.db.read() as conn:
            permit(conn)
        assert http.put(f"/compute/v2.1/os-services/{service['id']}", json={"forced_down": True}).status_code == 200
        assert http.delete(f"/compute/v2.1/os-services/{service['id']}").status_code == 204
        assert http.get("/compute/v2.1/os-services?host=far").json() == {"services": []}
    with running.cloud.db.read() as conn, pytest.raises(node_api.Refused, match="the certificate of far was revoked"):
        permit(conn)
    with running.cloud.db.read() as conn, pytest.raises(node_api.Refused, match="is not known here"):
        joining.permit("near", admission)(conn)
