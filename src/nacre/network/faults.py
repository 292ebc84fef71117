"""Refusals under the names and words of upstream, where clients match on them: `fault("NetworkInUse", net_id=...)` is the error to raise."""

from typing import Any

from nacre.core.errors import BadRequest, Conflict, Error, NotFound, OverQuota, Unavailable


class UpstreamBadRequest(BadRequest):
    """Upstream's own BadRequest, not just any 400."""


_NOT_FOUND = {
    "NetworkNotFound": "Network {net_id} could not be found.",
    "SubnetNotFound": "Subnet {subnet_id} could not be found.",
    "SubnetPoolNotFound": "Subnet pool {subnetpool_id} could not be found.",
    "PortNotFound": "Port {port_id} could not be found.",
    "RouterNotFound": "Router {router_id} could not be found",
    "RouterInterfaceNotFound": "Router {router_id} does not have an interface with id {port_id}",
    "RouterInterfaceNotFoundForSubnet": "Router {router_id} has no interface on subnet {subnet_id}",
    "FloatingIPNotFound": "Floating IP {floatingip_id} could not be found",
    "ExternalGatewayForFloatingIPNotFound": "External network {external_network_id} is not reachable from subnet {subnet_id}.  "
    "Therefore, cannot associate Port {port_id} with a Floating IP.",
    "SecurityGroupNotFound": "Security group {id} does not exist",
    "SecurityGroupRuleNotFound": "Security group rule {id} does not exist",
    "AgentNotFound": "Agent {id} could not be found.",
    "ExtensionsNotFound": "Extensions not found: {extensions}.",
    "ProjectQuotaNotFound": "Quota for project {project_id} could not be found.",
    "TagNotFound": "Tag {tag} could not be found.",
}
_IN_USE = {
    "SubnetPoolQuotaExceeded": "Per-tenant subnet pool prefix quota exceeded.",
    "NetworkInUse": "Unable to complete operation on network {net_id}. {reason}.",
    "SubnetInUse": "Unable to complete operation on subnet {subnet_id}: {reason}.",
    "PortInUse": "Unable to complete operation on port {port_id} for network {net_id}. Port already has an attached device {device_id}.",
    "ServicePortInUse": "Port {port_id} cannot be deleted directly via the port API: {reason}.",
    "PortBound": "Unable to complete operation on port {port_id}, port is already bound, port type: {vif_type}, "
    "old_mac {old_mac}, new_mac {new_mac}.",
    "MacAddressInUse": "Unable to complete operation for network {net_id}. The mac address {mac} is in use.",
    "IpAddressInUse": "Unable to complete operation for network {net_id}. The IP address {ip_address} is in use.",
    "IpAddressAlreadyAllocated": "IP address {ip} already allocated in subnet {subnet_id}.",
    "VlanIdInUse": "Unable to create the network. The VLAN {vlan_id} on physical network {physical_network} is in use.",
    "TunnelIdInUse": "Unable to create the network. The tunnel ID {tunnel_id} is in use.",
    "FlatNetworkInUse": "Unable to create the flat network. Physical network {physical_network} is in use.",
    "IpAddressGenerationFailure": "No more IP addresses available on network {net_id}.",
    "OverlappingAllocationPools": "Found overlapping allocation pools: {pool_1} {pool_2} for subnet {subnet_cidr}.",
    "GatewayConflictWithAllocationPools": "Gateway ip {ip_address} conflicts with allocation pool {pool}.",
    "GatewayIpInUse": "Current gateway ip {ip_address} already in use by port {port_id}. Unable to update.",
    "InvalidSharedSetting": "Unable to reconfigure sharing settings for network {network}. Multiple projects are using it.",
    "DefaultExternalNetworkExists": "A default external network already exists: {net_id}.",
    "ExternalNetworkInUse": "External network {net_id} cannot be updated to be made non-external, since it has existing gateway ports.",
    "DeviceIDNotOwnedByProject": "The following device_id {device_id} is not owned by your project or matches another project router.",
    "RouterInUse": "Router {router_id} {reason}",
    "RouterInterfaceInUseByFloatingIP": "Router interface for subnet {subnet_id} on router {router_id} cannot be deleted, "
    "as it is required by one or more floating IPs.",
    "RouterInterfaceInUseByRoute": "Router interface for subnet {subnet_id} on router {router_id} cannot be deleted, "
    "as it is required by one or more routes.",
    "RouterExternalGatewayInUseByFloatingIp": "Gateway cannot be updated for router {router_id}, since a gateway to external network "
    "{net_id} is required by one or more floating IPs.",
    "FloatingIPPortAlreadyAssociated": "Cannot associate floating IP {floating_ip_address} ({fip_id}) with port {port_id} "
    "using fixed IP {fixed_ip}, as that fixed IP already has a floating IP on external network {net_id}.",
    "SecurityGroupInUse": "Security Group {id} {reason}.",
    "SecurityGroupCannotRemoveDefault": "Insufficient rights for removing default security group.",
    "SecurityGroupCannotUpdateDefault": "Updating default security group not allowed.",
    "SecurityGroupDefaultAlreadyExists": "Default security group already exists.",
    "SecurityGroupRuleExists": "Security group rule already exists. Rule id is {rule_id}.",
    "PortSecurityPortHasSecurityGroup": "Port has security group associated. Cannot disable port security or IP address until security "
    "group is removed.",
    "PortSecurityAndIPRequiredForSecurityGroups": "Port security must be enabled and port must have an IP address in order to use "
    "security groups.",
    "AddressPairAndPortSecurityRequired": "Port Security must be enabled in order to have allowed address pairs on a port.",
}
_INVALID = {
    "EmptySubnetPoolPrefixList": "Empty subnet pool prefix list.",
    "PrefixVersionMismatch": "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.",
    "InvalidSubnetPoolPrefix": "Prefix length {which}_prefixlen {value} is not valid for IPv{version}.",
    "IllegalSubnetPoolPrefixBounds": "Illegal prefix bounds: {which}_prefixlen={value}, {base}_prefixlen={other}.",
    "IllegalSubnetPoolPrefixUpdate": "Illegal update to prefixes: {msg}.",
    "MinPrefixSubnetAllocationError": "Unable to allocate subnet with prefix length {prefixlen}, minimum allowed prefix is {min_prefixlen}.",
    "MaxPrefixSubnetAllocationError": "Unable to allocate subnet with prefix length {prefixlen}, maximum allowed prefix is {max_prefixlen}.",
    "SubnetAllocationError": "Failed to allocate subnet: {reason}.",
    "SubnetPoolDeleteError": "Unable to delete subnet pool: {reason}.",
    "InvalidInput": "Invalid input for operation: {error_message}.",
    "InvalidIpForNetwork": "IP address {ip_address} is not a valid IP for any of the subnets on the specified network.",
    "InvalidIpForSubnet": "IP address {ip_address} is not a valid IP for the specified subnet.",
    "InvalidAllocationPool": "The allocation pool {pool} is not valid.",
    "OutOfBoundsAllocationPool": "The allocation pool {pool} spans beyond the subnet cidr {subnet_cidr}.",
    "SubnetMismatchForPort": "Subnet on port {port_id} does not match the requested subnet {subnet_id}.",
    "DNSNameServersExhausted": "Unable to complete operation for {subnet_id}. The number of DNS nameservers exceeds the limit {quota}.",
    "HostRoutesExhausted": "Unable to complete operation for {subnet_id}. The number of host routes exceeds the limit {quota}.",
    "InvalidRoutes": "Invalid format for routes: {routes}, {reason}",
    "InvalidCIDR": "Invalid CIDR {input} given as IP prefix.",
    "ExternalIpAddressExhausted": "Unable to find any IP address on external network {net_id}.",
    "SecurityGroupInvalidPortRange": "For TCP/UDP protocols, port_range_min must be <= port_range_max",
    "SecurityGroupInvalidPortValue": "Invalid value for port {port}",
    "SecurityGroupInvalidProtocolForPort": "Ports cannot be specified for protocol {protocol}. "
    "Ports are only supported for {valid_port_protocols}.",
    "SecurityGroupInvalidIcmpValue": "Invalid value for ICMP {field} ({attr}) {value}. It must be 0 to 255.",
    "SecurityGroupMissingIcmpType": "ICMP code (port-range-max) {value} is provided but ICMP type (port-range-min) is missing.",
    "SecurityGroupEthertypeConflictWithProtocol": "Invalid ethertype {ethertype} for protocol {protocol}.",
    "SecurityGroupRuleInvalidProtocol": "Security group rule protocol {protocol} not supported. Only protocol values {values} and "
    "integer representations [0 to 255] are supported.",
    "SecurityGroupRuleInvalidEtherType": "Security group rule for ethertype '{ethertype}' not supported. Allowed values are {values}.",
    "SecurityGroupRuleParameterConflict": "Conflicting value ethertype {ethertype} for CIDR {cidr}",
    "SecurityGroupMultipleRemoteEntites": "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.",
    "SecurityGroupProtocolRequiredWithPorts": "Must also specify protocol if port range is given.",
    "AddressPairMatchesPortFixedIPAndMac": "Port's Fixed IP and Mac Address match an address pair entry.",
    "DuplicateAddressPairInRequest": "Request contains duplicate address pair: mac_address {mac_address} ip_address {ip_address}.",
}
_FAMILIES: tuple[tuple[type[Error], dict[str, str]], ...] = (
    (NotFound, _NOT_FOUND), (Conflict, _IN_USE), (BadRequest, _INVALID),
    (UpstreamBadRequest, {"BadRequest": "Bad {resource} request: {msg}."}),
    (Unavailable, {"NoNetworkAvailable": "Unable to create the network. No project network is available for allocation.",
                   "NetworkMacAddressGenerationFailure": "Unable to generate unique mac on network {net_id}."}),
)  # fmt: skip
_FAULTS = {name: (family, text) for family, texts in _FAMILIES for name, text in texts.items()}


def fault(kind: str, **words: Any) -> Error:
    """The refusal `kind` with its words filled in."""
    family, text = _FAULTS[kind]
    return family(text.format(**words), kind=kind)


def refused(message: str) -> Error:
    """Upstream's InvalidInput."""
    return fault("InvalidInput", error_message=message)


def invalid(field: str, reason: str) -> Error:
    """A value that its field cannot have."""
    return BadRequest(f"Invalid input for {field}. Reason: {reason}.", kind="HTTPBadRequest")


def over_quota(overs: list[str], *_: Any) -> OverQuota:
    return OverQuota(f"Quota exceeded for resources: {overs}.", kind="OverQuota", status=409)


def rendered(error: Error, _request_id: str) -> dict[str, Any]:
    """Upstream's body of an error."""
    if error.code == 401:
        return {"error": {"code": 401, "title": "Unauthorized", "message": error.message}}
    plain = error.name in ("BadRequest", "NotFound", "Conflict", "Forbidden") and not isinstance(error, UpstreamBadRequest)
    name = f"HTTP{error.name}" if plain else error.name
    return {"NeutronError": {"type": name, "message": error.message, "detail": ""}}
