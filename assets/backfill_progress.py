"""What became of backfills and quarters, asked of the webserver: progress, completeness, reasons.

Launching and the connection are ``backfill``; what the command makes of it is ``backfill_command``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from assets.backfill import BackfillError, Webserver
from ts_forecast.quarters import Quarter, quarter_range

# Tag of the backfills that the command launched; its value is the pipeline.
BACKFILL = "ts_forecast/backfill"
_DAEMONS = """
query Daemons { instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }
"""
_OPEN = """
query Open($statuses: [BulkActionStatus!]) {
  partitionBackfillsOrError(limit: 100, filters: {statuses: $statuses}) {
    __typename
    ... on PartitionBackfills { results { id tags { key value } } }
    ... on PythonError { message }
  }
}
"""
_PROGRESS = """
query Progress($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      assetBackfillData { assetBackfillStatuses {
        ... on AssetPartitionsStatusCounts {
          numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
        }
      } }
    }
  }
}
"""
_CANCEL = """
mutation Cancel($id: String!) {
  cancelPartitionBackfill(backfillId: $id) {
    __typename
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}
"""
_PARTITIONS = """
query Partitions($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) {
    assetPartitionStatuses {
      ... on TimePartitionStatuses { ranges { startKey endKey status } }
    }
  }
}
"""
_RUNS = """
query Runs($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { runs(limit: 1000) { status tags { key value } } }
  }
}
"""
_REASON = """
query Reason($id: ID!) {
  logsForRun(runId: $id, limit: 1000) {
    ... on EventConnection { events {
      ... on ExecutionStepFailureEvent {
        stepKey error { message } failureMetadata { description }
      }
    } }
  }
}
"""


@dataclass(frozen=True)
class Progress:
    """Asset partitions of a backfill."""

    wanted: int
    made: int
    failed: int


def check_daemon(server: Webserver) -> None:
    """Refuse where nobody would launch the runs.

    Raises:
        BackfillError: the webserver does not answer, or the backfill daemon does not run.
    """
    statuses = server.query(_DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    if not any(one["daemonType"] == "BACKFILL" and one["healthy"] for one in statuses):
        raise BackfillError(
            "The webserver answers, but Dagster's backfill daemon does not run.",
            remedy="Start both with `ts-forecast dev`.",
        )


def open_backfills(server: Webserver, pipeline: str) -> list[str]:
    """Ids of the pipeline's backfills that the command launched and that have not ended."""
    answer = server.query(_OPEN, statuses=["REQUESTED"])["partitionBackfillsOrError"]
    if answer["__typename"] != "PartitionBackfills":
        raise BackfillError(f"Dagster lists no backfills: {answer.get('message')}.")
    wanted = {"key": BACKFILL, "value": pipeline}
    return [one["id"] for one in answer["results"] if wanted in one["tags"]]


def progress(server: Webserver, backfill_id: str) -> Progress:
    """How far a backfill is."""
    data = server.query(_PROGRESS, id=backfill_id)["partitionBackfillOrError"]
    found = (data.get("assetBackfillData") or {}).get("assetBackfillStatuses", ())
    counts = [one for one in found if one]
    return Progress(
        wanted=sum(one["numPartitionsTargeted"] for one in counts),
        made=sum(one["numPartitionsMaterialized"] for one in counts),
        failed=sum(one["numPartitionsFailed"] for one in counts),
    )


def cancel(server: Webserver, backfill_id: str) -> None:
    """Cancel a backfill; its runs are ended.

    Raises:
        BackfillError: Dagster refused.
    """
    answer = server.query(_CANCEL, id=backfill_id)["cancelPartitionBackfill"]
    if answer["__typename"] != "CancelBackfillSuccess":
        raise BackfillError(f"Dagster did not cancel {backfill_id}: {answer.get('message')}.")


def incomplete(
    server: Webserver, assets: Iterable[list[str]], quarters: Iterable[Quarter]
) -> list[Quarter]:
    """Those of the quarters of which an asset is missing, or failed the last time."""
    wanted = list(quarters)
    keys = [{"path": path} for path in assets]
    nodes = server.query(_PARTITIONS, keys=keys)["assetNodes"]
    done = set(wanted)
    for node in nodes:
        ranges = [
            (Quarter.parse(one["startKey"]), Quarter.parse(one["endKey"]))
            for one in (node["assetPartitionStatuses"] or {}).get("ranges", ())
            if one["status"] == "MATERIALIZED"
        ]
        done &= {q for q in wanted if any(first <= q <= last for first, last in ranges)}
    return [quarter for quarter in wanted if quarter not in done]


def unfinished(server: Webserver, backfill_id: str) -> set[Quarter]:
    """The quarters of a backfill's runs that did not succeed."""
    found: set[Quarter] = set()
    data = server.query(_RUNS, id=backfill_id)["partitionBackfillOrError"]
    for run in data.get("runs", ()):
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        one = tags.get("dagster/partition")
        first = tags.get("dagster/asset_partition_range_start", one)
        last = tags.get("dagster/asset_partition_range_end", one)
        if run["status"] != "SUCCESS" and first and last:
            found |= {*quarter_range(Quarter.parse(first), Quarter.parse(last))}
    return found


def reasons(server: Webserver, run_ids: Iterable[str]) -> list[str]:
    """Why the steps of failed runs failed, one line each, without repetitions."""
    lines: dict[str, None] = {}
    for run_id in run_ids:
        events = server.query(_REASON, id=run_id)["logsForRun"].get("events", ())
        for event in events:
            if not event or "stepKey" not in event:
                continue
            told = (event["failureMetadata"] or {}).get("description")
            text = told or (event["error"] or {}).get("message") or "no reason on record"
            lines[f"{event['stepKey']}: {' '.join(text.split())}"] = None
    return list(lines)
