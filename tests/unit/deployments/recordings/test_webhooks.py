"""Webhooks: the signature of the standard, and where no message ever goes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from deployments.gateway.problems import Refusal
from deployments.gateway.recordings.store.base import Job
from deployments.gateway.recordings.webhooks import NotDelivered, Webhooks, sign
from deployments.recording_settings import WebhookSettings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENDED = Job("one", "key a", "done", "{}", 0.0, 0.0)


def webhooks(**settings: object) -> Webhooks:
    return Webhooks(WebhookSettings.model_validate({"secret": SECRET, "within_s": 5, **settings}))


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the Standard Webhooks specification and of its libraries."""
    body = b'{"test": 2432232314}'
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_%%%"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValidationError, match="24 bytes"):
        WebhookSettings.model_validate({"secret": secret})


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/hook",
        "ftp://example.org/",
        "https://user:password@example.org/",
        "https://example.org/#part",
        "https://127.0.0.1/",
        "https://10.0.0.8/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[fd00::1]/",
        "https:///hook",
        "https://example.org/" + "a" * 2000,
        "no address",
    ],
)
def test_where_no_message_goes(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        webhooks().check(url)
    assert refused.value.kind.slug == "bad-webhook"


def test_without_a_secret_there_are_no_webhooks() -> None:
    with pytest.raises(Refusal, match="no secret"):
        Webhooks(WebhookSettings()).check("https://example.org/hook")
    assert Webhooks(WebhookSettings()).check(None) is None


def test_a_public_address_is_taken() -> None:
    assert webhooks().check("https://example.org/hook?for=me") == "https://example.org/hook?for=me"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1.", "0x7f000001", "2130706433"])
async def test_a_name_that_leads_to_this_machine_is_not_asked(host: str) -> None:
    with pytest.raises(NotDelivered):
        await webhooks().deliver(f"https://{host}/hook", ENDED)


async def test_http_goes_to_this_machine_alone_and_only_where_it_is_allowed() -> None:
    with pytest.raises(NotDelivered, match="may not be asked"):
        await webhooks(private=True).deliver("http://10.0.0.8/hook", ENDED)
