"""The EC2 metadata notice: a spot instance learns there, two minutes ahead, that it will be taken.

Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide "Spot Instance interruption notices" (instance-action, polled every
5 seconds) and "Use the Instance Metadata Service" (IMDSv2). The environment variables are those of the AWS SDKs.
"""

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException

__all__ = ["Ec2Poller"]

log = logging.getLogger(__name__)

_DEFAULT_ENDPOINT = "http://169.254.169.254"
_POLL_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
_TOKEN_TTL_SECONDS = 21600


class Ec2Poller:
    """Asks the instance metadata service for a spot interruption, in a daemon thread. Never raises."""

    def __init__(self, env: Mapping[str, str] | None = None, *, poll_seconds: float = _POLL_SECONDS) -> None:
        env = os.environ if env is None else env
        self._endpoint = (env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")
        self._is_disabled = env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        self._poll_seconds = poll_seconds
        self._token: str | None = None
        self._stop = threading.Event()
        # No proxy: the address means this very machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def start(self, on_notice: Callable[[str], None]) -> None:
        """Begin to ask; call *on_notice* once, from the thread, with what the service announced."""
        if self._is_disabled:
            log.info("The EC2 metadata notice is off: AWS_EC2_METADATA_DISABLED is set.")
            return
        self._stop.set()
        self._stop = threading.Event()  # a thread from before sees its own
        threading.Thread(
            target=self._run, args=(on_notice, self._stop), name="spotproof-ec2-notice", daemon=True
        ).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    def _run(self, on_notice: Callable[[str], None], stop: threading.Event) -> None:
        has_failed = False
        while not stop.is_set():
            try:
                action = self.ask()
            except (OSError, ValueError, HTTPException) as err:
                if not has_failed:  # said once: outside EC2 it would be said every five seconds
                    log.info("The EC2 metadata service at %s does not answer: %s.", self._endpoint, err)
                has_failed = True
            else:
                if action is not None and not stop.is_set():
                    on_notice(f"EC2 {action}")
                    return
            stop.wait(self._poll_seconds)

    def ask(self) -> str | None:
        """Return the announced action (``terminate``, ``stop``, ``hibernate``), or None if there is none.

        Raises:
            OSError: The service can't be reached or refuses.
            ValueError: Its answer is not the documented one.
        """
        try:
            answer = self._get("/latest/meta-data/spot/instance-action")
        except urllib.error.HTTPError as err:
            err.close()
            if err.code == 404:
                return None
            if err.code == 401:
                self._token = None  # expired; the next round takes a new one
            raise
        notice = json.loads(answer)
        if not isinstance(notice, dict) or not isinstance(notice.get("action"), str):
            raise ValueError(f"{answer[:200]!r} is not an instance-action")
        return str(notice["action"])

    def _get(self, path: str) -> bytes:
        if self._token is None:
            self._token = self._request(
                "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_SECONDS)}
            ).decode("ascii")
        return self._request("GET", path, {"X-aws-ec2-metadata-token": self._token})

    def _request(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        request = urllib.request.Request(self._endpoint + path, headers=headers, method=method)
        with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read(64 * 1024)
        return data
