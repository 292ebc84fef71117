"""Every domain of a libvirtd, whoever made it, with the files and taps that it names, for `nacre doctor`."""

import xml.etree.ElementTree as ET
from typing import Any

import libvirt

from nacre.node.hypervisor.driver import SeenDomain


def domains(connection: Any, power_of: Any) -> list[SeenDomain]:
    """A domain that goes while it is looked at is left out. Raises libvirt.libvirtError."""
    found = []
    for domain in connection.listAllDomains():
        try:
            texts = [domain.XMLDesc(flag) for flag in ({0, libvirt.VIR_DOMAIN_XML_INACTIVE} if domain.isActive() else {0})]
            whole = [ET.fromstring(text) for text in texts]
            sources = [source.get("file") for each in whole for source in each.iter("source")]
            taps = [target.get("dev") for each in whole for target in each.findall("devices/interface/target")]
            found.append(SeenDomain(domain.UUIDString(), domain.name(), power_of(*domain.state()[:2]),
                                    tuple(sorted({tap for tap in taps if tap})), tuple(sorted({path for path in sources if path}))))  # fmt: skip
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found
