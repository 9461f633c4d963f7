"""Launching and following backfills through the webserver's own GraphQL.

The same mutation that the UI's button sends, so that a script and a click do the same. Runs without
a webserver are ``materialize``; what became of quarters is ``backfill_progress``.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from ts_forecast.errors import TsForecastError

_LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on PartitionSetNotFoundError { message }
    ... on UnauthorizedError { message }
  }
}
"""
_FOLLOW = """
query Follow($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill {
      status
      error { message }
      runs(limit: 1000) { id status }
    }
    ... on BackfillNotFoundError { message }
    ... on PythonError { message }
  }
}
"""
_ASSETS = "query Assets { assetNodes { assetKey { path } groupName partitionKeys } }"
_FINAL = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}


class BackfillError(TsForecastError):
    """The webserver refused a backfill, or it did not end in time."""


@dataclass(frozen=True)
class BackfillState:
    """What the daemon has made of a backfill so far.

    Attributes:
        status: Dagster's ``BulkActionStatus``.
        runs: status of each run, by run id.
        error: why the backfill itself failed, if it did.
    """

    status: str
    runs: dict[str, str]
    error: str | None

    @property
    def is_final(self) -> bool:
        """Nothing more will happen."""
        return self.status in _FINAL

    @property
    def succeeded(self) -> bool:
        """Every requested partition was materialized."""
        return self.status == "COMPLETED_SUCCESS"


class Webserver:
    """A running webserver, by its address (``http://127.0.0.1:3000``)."""

    def __init__(self, address: str, *, timeout: float = 30.0) -> None:
        self._url = f"{address.rstrip('/')}/graphql"
        self._timeout = timeout

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        """The ``data`` of a GraphQL answer.

        Raises:
            BackfillError: the server cannot be reached or reports an error.
        """
        try:
            answer = requests.post(
                self._url, json={"query": text, "variables": variables}, timeout=self._timeout
            )
            answer.raise_for_status()
            content: dict[str, Any] = answer.json()
        except requests.RequestException as error:
            raise BackfillError(
                f"The Dagster webserver at {self._url} does not answer: {error}.",
                remedy="Start it with `ts-forecast dev`.",
            ) from error
        if content.get("errors"):
            raise BackfillError(f"Dagster refused a query: {content['errors'][0]['message']}.")
        data: dict[str, Any] = content["data"]
        return data

    def asset_keys(self, pipeline: str) -> list[list[str]]:
        """Keys of all assets of a pipeline; empty until its code location has loaded."""
        nodes = self.query(_ASSETS)["assetNodes"]
        return [node["assetKey"]["path"] for node in nodes if node["groupName"] == pipeline]

    def launch(
        self,
        assets: Sequence[Sequence[str]],
        partitions: Sequence[str],
        *,
        title: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Launch a backfill as the UI does.

        Args:
            title: what the UI calls it.
            tags: of the backfill and each of its runs.

        Returns:
            The backfill's id.

        Raises:
            BackfillError: Dagster refused it; says why.
        """
        params = {
            "assetSelection": [{"path": list(path)} for path in assets],
            "partitionNames": list(partitions),
            "title": title,
            "tags": [{"key": key, "value": value} for key, value in (tags or {}).items()],
        }
        answer = self.query(_LAUNCH, params=params)["launchPartitionBackfill"]
        if answer["__typename"] != "LaunchBackfillSuccess":
            reason = answer.get("message", answer["__typename"])
            raise BackfillError(f"Dagster refused the backfill: {reason}.")
        return str(answer["backfillId"])

    def state(self, backfill_id: str) -> BackfillState:
        """What has become of a backfill."""
        answer = self.query(_FOLLOW, id=backfill_id)["partitionBackfillOrError"]
        if answer["__typename"] != "PartitionBackfill":
            raise BackfillError(f"Backfill {backfill_id}: {answer.get('message')}.")
        return BackfillState(
            status=answer["status"],
            runs={run["id"]: run["status"] for run in answer["runs"]},
            error=answer["error"]["message"] if answer["error"] else None,
        )

    def wait(self, backfill_id: str, *, seconds: float, poll: float = 2.0) -> BackfillState:
        """Wait until a backfill has ended.

        Raises:
            BackfillError: it has not, after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            state = self.state(backfill_id)
            if state.is_final:
                return state
            if time.monotonic() > deadline:
                raise BackfillError(
                    f"Backfill {backfill_id} is {state.status} after {seconds:.0f} s "
                    f"with the runs {sorted(state.runs.values())}.",
                    remedy="Look at its runs in the UI.",
                )
            time.sleep(poll)
