"""MLflow's part of ``benchmarks.tracking``, run by an interpreter that has MLflow.

``python mlflow_runs.py URL PARAMETERS METRICS`` opens MLflow's own store on PostgreSQL and prints its
version as a line of JSON; then, for each number of runs read from standard input, writes so many and
prints the seconds. It imports nothing of ts-forecast.
"""

import json
import sys
import time

import mlflow
from mlflow.entities import Metric, Param, RunStatus
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


def main(url: str, parameters: int, metrics: int) -> None:
    store = SqlAlchemyStore(url, "file:///dev/null")
    experiment = store.create_experiment("benchmark")
    number = 0

    def write() -> None:
        nonlocal number
        number += 1
        now = int(time.time() * 1000)
        run = store.create_run(experiment, "benchmark", now, [], f"run {number}")
        store.log_batch(
            run.info.run_id,
            metrics=[Metric(f"m{i:03}", i * 0.5 + number, now, i) for i in range(metrics)],
            params=[Param(f"p{i:03}", str(i * 0.1)) for i in range(parameters)],
            tags=[],
        )
        done = RunStatus.from_string("FINISHED")
        store.update_run_info(run.info.run_id, done, now, run.info.run_name)

    write()
    print(json.dumps({"version": mlflow.__version__}), flush=True)
    for line in sys.stdin:
        begun = time.monotonic()
        for _ in range(int(line)):
            write()
        print(json.dumps({"seconds": time.monotonic() - begun}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
