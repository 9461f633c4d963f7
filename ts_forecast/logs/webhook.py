"""Telling a webhook: JSON as Slack, Mattermost and their like take it.

A dead webhook costs seconds and never an error: what it would have been told stands in ``system_logs``.
"""

from __future__ import annotations

import html
import logging
import time

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from ts_forecast.settings import Settings

_ATTEMPTS = 3
_SECONDS = 8.0
_TIMEOUT = (3.0, 4.0)
# Many runs that fail at once must not each wait for a webhook that is gone.
_SILENT_SECONDS = 60.0
_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """It will not take it, however often it is asked."""


class _UnwillingError(_RefusedError):
    """It could not be reached, or asks for patience."""


class Webhook:
    """The deployment's webhook, if it has one."""

    def __init__(self, settings: Settings, *, silent_seconds: float = _SILENT_SECONDS) -> None:
        self._url = settings.webhook_url
        self._silent_seconds = silent_seconds
        self._silent_until = 0.0

    def tell(self, text: str) -> bool:
        """Post a text; whether it was taken. Never raises.

        Tried three times within 8 seconds; after a failure nothing is tried for a minute.
        """
        if self._url is None or time.monotonic() < self._silent_until:
            return False
        asking = Retrying(
            stop=stop_after_attempt(_ATTEMPTS) | stop_before_delay(_SECONDS),
            wait=wait_random_exponential(0.2, 2.0),
            retry=retry_if_exception_type(_UnwillingError),
            reraise=True,
        )
        try:
            asking(self._post, self._url.get_secret_value(), text)
        except Exception as error:  # noqa: BLE001 — whatever it is, the sensor goes on
            self._silent_until = time.monotonic() + self._silent_seconds
            # Its address is a secret, and the library's messages quote it.
            reason = str(error) if isinstance(error, _RefusedError) else type(error).__name__
            _log.warning("The webhook was not told: %s", reason)
            return False
        return True

    @staticmethod
    def _post(url: str, text: str) -> None:
        import requests

        try:
            # Slack's three special characters; a redirect would carry the text elsewhere.
            answer = requests.post(
                url,
                json={"text": html.escape(text, quote=False)},
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _UnwillingError(type(error).__name__) from None
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _UnwillingError(f"it answered {answer.status_code}")
        if answer.status_code >= 300:
            raise _RefusedError(f"it answered {answer.status_code}")
