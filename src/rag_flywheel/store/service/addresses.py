"""Who can reach an address, and whose page calls it: for servers that stand without keys on this machine."""

import ipaddress
from urllib.parse import urlsplit

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def on_loopback(host: str) -> bool:
    """Whether only this machine can call a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local_name(host: str) -> bool:
    """Whether a request's Host names this machine: a page whose own name was pointed here sends that name."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host) in LOCAL_NAMES


def same_origin(origin: str, host: str) -> bool:
    """Whether a page is of the server itself; the origin "null" is of nobody."""
    try:
        found = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(found) and found == host
