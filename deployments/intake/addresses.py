"""What counts as one client, by its address."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

NETWORK_BITS: Final = 64  # of an IPv6 address: whoever has one has all addresses of its network


def network_of(host: str) -> str:
    """The address; of IPv6 the network; what is no address, such as the name of a test client, as it is."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{address.exploded[: NETWORK_BITS // 16 * 5 - 1]}::/{NETWORK_BITS}"
