"""Which addresses may be called. Whoever makes a rule names a URL, and must not reach into our own network by it."""

from __future__ import annotations

import ipaddress

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
"""Where clouds tell machines their secrets, as far as these are not link-local."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def may_be_called(text: str, *, private_allowed: bool) -> bool:
    """Whether an address, as the resolver gave it, may be connected to.

    Public ones always; those of private networks and of this machine where it is allowed; link-local ones, multicast and those where
    clouds keep their metadata never.
    """
    address = _innermost(ipaddress.ip_address(text.partition("%")[0]))
    if address in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    return private_allowed or address.is_global


def _innermost(address: _Address) -> _Address:
    """The IPv4 address that is meant by an IPv6 address that stands for one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
    return address
