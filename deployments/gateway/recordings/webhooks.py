"""Tells a server of the client that its job has ended: signed, and never to an address that is ours.

Standard Webhooks (standardwebhooks.com): HMAC-SHA256 over id, time and body. A message says which job has ended and
how, and none of its words: those are fetched with the key. Names are resolved here, and the connection goes to an
address that was looked at: a name that means another address a moment later changes nothing. Redirects are not
followed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import socket
import time
from typing import Final

import httpx

from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.recordings.store.base import Job
from deployments.recording_settings import SECRET_PREFIX, WebhookSettings

LONGEST_URL: Final = 2000  # characters
WEBHOOK: Final = "webhook"  # query parameter
PORTS: Final = {"https": 443, "http": 80}


class NotDelivered(Exception):  # noqa: N818 - an error by its base class
    """A message did not arrive. The text has no address in it."""


class Webhooks:
    """Sends messages.

    Args:
        settings: secret and limits.
    """

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    def check(self, written: str | None) -> str | None:
        """The address that a client names, if messages may go there as far as its text tells.

        Raises:
            Refusal: it is none, or no messages are sent at all.
        """
        if written is None:
            return None
        if self._settings.secret is None:
            raise _refused("this cluster sends no webhooks: its operator has set no secret", None)
        accepted = f"https, up to {LONGEST_URL} characters, without a user and a fragment"
        try:
            url = httpx.URL(written)
        except (httpx.InvalidURL, ValueError):
            raise _refused("the webhook is no address", accepted) from None
        schemes = {"https", "http"} if self._settings.private else {"https"}
        if url.scheme not in schemes or not url.host or url.userinfo or url.fragment or len(written) > LONGEST_URL:
            raise _refused("messages cannot be sent to this webhook", accepted)
        if not self._settings.private and _is_address(url.host) and not _is_public(url.host):
            raise _refused("the address of the webhook is not public", "a public address")
        return written

    async def deliver(self, webhook: str, job: Job) -> None:
        """Tells that a job has ended.

        Raises:
            NotDelivered: the server did not take the message.
        """
        now = int(time.time())
        body = json.dumps(
            {"type": f"recording.{job.status}", "timestamp": _iso(now), "data": {"id": job.id, "status": job.status}}
        ).encode()
        try:
            async with asyncio.timeout(self._settings.within_s):
                await self._post(httpx.URL(webhook), body, self._signed(job.id, now, body))
        except TimeoutError:
            raise NotDelivered("it took too long") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # the last: a name that is none
            raise NotDelivered(type(error).__name__) from None

    def _signed(self, message_id: str, now: int, body: bytes) -> dict[str, str]:
        assert self._settings.secret is not None  # by `check`
        signature = sign(self._settings.secret.get_secret_value(), message_id, now, body)
        return {"webhook-id": message_id, "webhook-timestamp": str(now), "webhook-signature": signature}

    async def _post(self, url: httpx.URL, body: bytes, signed: dict[str, str]) -> None:
        address = await self._resolved(url)
        host = url.netloc.decode()
        headers = {"Host": host, "Content-Type": "application/json", "User-Agent": "amser-webhook", **signed}
        pinned = url.copy_with(host=address)
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=None) as client:
            request = client.build_request(
                "POST", pinned, content=body, headers=headers, extensions={"sni_hostname": url.host}
            )
            answer = await client.send(request, stream=True)  # its body is of no interest, however long
            await answer.aclose()
        if not answer.is_success:
            raise NotDelivered(f"it was answered with {answer.status_code}")

    async def _resolved(self, url: httpx.URL) -> str:
        """An address of the host to which messages may go."""
        port = url.port or PORTS[url.scheme]
        found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if self._settings.private:
            allowed = [each for each in addresses if url.scheme == "https" or ipaddress.ip_address(each).is_loopback]
        else:
            allowed = addresses if all(map(_is_public, addresses)) else []
        if not allowed:
            raise NotDelivered("its address may not be asked")
        return allowed[0]


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` of a message.

    Args:
        secret: `whsec_` and base64.
        message_id, timestamp: as sent; the latter in seconds since 1970.
        body: of the message.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address inside, which a translator between would ask
        inside = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inside or ip in _NAT64:
            return bool(inside) and _is_public(str(inside))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or getattr(ip, "is_site_local", False))


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _refused(cause: str, limit: str | None) -> Refusal:
    refused = refusal_of("bad-webhook", cause, limit)
    refused.parameter = WEBHOOK
    return refused
