"""The wires of a node: what connects guests to networks. `driver` is the contract, `openvswitch` the real one, `fake` one in memory."""
