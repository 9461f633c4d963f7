"""The executor on real runs: processes, devices, failures, kills and cancellation."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from executor_harness import Deployment, config_for, execute, is_running, read_notes, wait_for

from resources.device_locks import take_device
from resources.devices import find_devices
from ts_forecast.cores import threads_of_each
from ts_forecast.errors import SettingsError

FOUR = tuple(f"train_{index}" for index in range(4))


def claimed_slots(deployment: Deployment) -> set[str]:
    """Steps that hold a slot of the pool."""
    info = deployment.instance.event_log_storage.get_concurrency_info("gpu")
    return {slot.step_key for slot in info.claimed_slots} | {
        step.step_key for step in info.pending_steps
    }


def assert_devices_are_free(deployment: Deployment) -> None:
    devices = find_devices(deployment.settings)
    for device in devices:
        with take_device(
            deployment.settings.home / "locks",
            [device],
            holder="test",
            on_wait=lambda: pytest.fail("still locked"),
        ):
            pass


def family_of(run: subprocess.Popen, *steps: int) -> list[psutil.Process]:
    """What lives for a run: its children, and the servers of its steps, which a zygote may have borne."""
    parents = [psutil.Process(step).parent() for step in steps]
    heads = [psutil.Process(run.pid), *(parent for parent in parents if parent is not None)]
    family = {process for head in heads for process in head.children(recursive=True)}
    return list(family | {parent for parent in parents if parent is not None})


def started(notes: Path) -> list[dict[str, Any]]:
    return [note for note in read_notes(notes) if note["what"] == "start"]


def trainings(notes: Path) -> list[dict[str, Any]]:
    return [note for note in started(notes) if note["step"] in FOUR]


def last_run(deployment: Deployment) -> dg.DagsterRun:
    return deployment.instance.get_runs(limit=1)[0]


def failure_of(deployment: Deployment, run_id: str) -> str:
    """The reason of the run's only failed step."""
    (entry,) = deployment.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert entry.dagster_event is not None
    failure = entry.dagster_event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    assert failure.error is not None
    return failure.error.message


def test_run__gives_each_training_step_a_process_and_a_device(
    deployment: Deployment, notes: Path
) -> None:
    result = execute(deployment, "four_trainings", config_for(notes, *FOUR, "prepare", seconds=0.3))

    assert result.success
    seen = {note["step"]: note for note in started(notes)}
    assert len({note["pid"] for note in seen.values()} | {os.getpid()}) == 6
    assert {seen[step]["device"] for step in FOUR} == {"fake-a", "fake-b"}
    assert {note["hash_seed"] for note in seen.values()} == {"0"}
    assert not seen["prepare"]["has_torch"]
    assert claimed_slots(deployment) == set()


def test_run__launches_later_steps_faster_than_dagster_is_imported(
    deployment: Deployment, notes: Path
) -> None:
    result = execute(deployment, "four_trainings", config_for(notes, *FOUR, "prepare"))

    times: dict[str, dict[str, float]] = {}
    for entry in deployment.instance.all_logs(result.run_id):
        if entry.is_dagster_event and entry.step_key:
            kind = entry.get_dagster_event().event_type_value
            times.setdefault(entry.step_key, {})[kind] = entry.timestamp
    trainings = sorted((times[step] for step in FOUR), key=lambda t: t["STEP_WORKER_STARTING"])
    # Half a second is what benchmarks/executor shows; here, what holds on a host of any load.
    begun = time.time()
    subprocess.run([sys.executable, "-c", "import dagster"], check=True)
    imported = time.time() - begun
    waits = [step["STEP_START"] - step["STEP_WORKER_STARTING"] for step in trainings[2:]]
    assert statistics.median(waits) < imported


def test_runs__side_by_side_never_share_a_device(
    deployment: Deployment, notes: Path, start_run: Callable[..., Any]
) -> None:
    config = config_for(notes, *FOUR, "prepare", seconds=0.3)
    runs = [start_run("four_trainings", config) for _ in range(2)]
    assert [run.wait(timeout=90) for run in runs] == [0, 0]

    events = sorted(
        (note for note in read_notes(notes) if note["step"] in FOUR), key=lambda n: n["at"]
    )
    assert len(events) == 16
    device_of = {note["pid"]: note["device"] for note in events if note["what"] == "start"}
    busy: set[str] = set()
    for note in events:
        device = device_of[note["pid"]]
        if note["what"] == "start":
            assert device not in busy
            busy.add(device)
        else:
            busy.remove(device)


def test_step__is_bounded_in_its_threads(
    deployment: Deployment, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(notes, "train_with_torch")
    config["execution"] = {"config": {"preload": ["torch"]}}
    assert execute(deployment, "torch_training", config).success

    (note,) = read_notes(notes)
    assert note["threads"] == threads_of_each(2)


def test_step__uses_slots_that_are_free_beside_its_own(deployment: Deployment, notes: Path) -> None:
    result = execute(deployment, "training_beside", config_for(notes, "train_beside"))

    assert result.success
    seen = {note["what"]: note for note in read_notes(notes)}
    assert {seen["own"]["device"], seen["beside"]["device"]} == {"fake-a", "fake-b"}
    assert seen["beside"]["slot"] == seen["beside"]["device"]
    assert_devices_are_free(deployment)


def test_step_failure__has_its_reason_in_one_line(deployment: Deployment) -> None:
    result = execute(deployment, "refused")

    assert not result.success
    reason = failure_of(deployment, result.run_id)
    assert reason == "Series A has 3 values; 24 are needed. Add history."
    assert claimed_slots(deployment) == set()


@pytest.mark.parametrize(
    ("job", "reason"),
    [("vanishing", "exited with code 0 before it reported"), ("crashing", "killed by SIGSEGV")],
)
def test_step__that_dies_without_a_word_fails_the_run(
    deployment: Deployment, job: str, reason: str
) -> None:
    result = execute(deployment, job)

    assert not result.success
    message = failure_of(deployment, result.run_id)
    assert reason in message and len(message.strip().splitlines()) == 1


def test_step__that_was_killed_is_retried_by_its_policy(
    deployment: Deployment, notes: Path
) -> None:
    result = execute(deployment, "crashing_once", config_for(notes, "crash_once"))

    assert result.success
    assert len(read_notes(notes)) == 2


def test_step__output_is_in_the_compute_logs(deployment: Deployment) -> None:
    result = execute(deployment, "speaking")

    (entry,) = deployment.instance.all_logs(
        result.run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED
    )
    assert entry.dagster_event is not None
    manager = deployment.instance.compute_log_manager
    key = entry.dagster_event.logs_captured_data.file_key
    data = manager.get_log_data(manager.build_log_key_for_run(result.run_id, key))
    assert data.stdout is not None and data.stderr is not None
    assert {b"said by Python", b"said by a program"} <= set(data.stdout.splitlines())
    assert b"complained" in data.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_training_step__killed__frees_its_device_and_slot_within_5_s(
    deployment: Deployment,
    notes: Path,
    start_run: Callable[..., Any],
    signal_number: signal.Signals,
) -> None:
    run = start_run("one_training", config_for(notes, "train", seconds=60))
    (note,) = wait_for(lambda: started(notes))
    assert claimed_slots(deployment) == {"train"}

    killed = time.monotonic()
    os.kill(note["pid"], signal_number)

    wait_for(lambda: not claimed_slots(deployment), seconds=5)
    assert_devices_are_free(deployment)
    assert time.monotonic() - killed < 5
    run.wait(timeout=20)
    reason = failure_of(deployment, last_run(deployment).run_id)
    assert f"killed by {signal_number.name}" in reason


def test_training_step__killed__takes_the_processes_beside_it_along(
    deployment: Deployment, notes: Path, start_run: Callable[..., Any]
) -> None:
    run = start_run("training_beside", config_for(notes, "train_beside", seconds=60))
    wait_for(lambda: len(read_notes(notes)) == 2, seconds=60)
    pids = {note["what"]: note["pid"] for note in read_notes(notes)}

    killed = time.monotonic()
    os.kill(pids["own"], signal.SIGKILL)

    wait_for(lambda: not claimed_slots(deployment), seconds=5)
    wait_for(lambda: not is_running(pids["beside"]), seconds=5)
    assert_devices_are_free(deployment)
    assert time.monotonic() - killed < 5
    run.wait(timeout=20)


def test_sigkill_of_the_fork_server__frees_device_and_slot_within_5_s(
    deployment: Deployment, notes: Path, start_run: Callable[..., Any]
) -> None:
    run = start_run("one_training", config_for(notes, "train", seconds=60))
    (note,) = wait_for(lambda: started(notes))
    server = psutil.Process(note["pid"]).parent()
    assert server is not None

    killed = time.monotonic()
    server.kill()

    wait_for(lambda: not claimed_slots(deployment), seconds=5)
    assert_devices_are_free(deployment)
    assert time.monotonic() - killed < 5
    assert not is_running(note["pid"])
    run.wait(timeout=20)
    reason = failure_of(deployment, last_run(deployment).run_id)
    assert "the fork server that its process belonged to was killed" in reason


def test_device__disappeared__is_given_to_no_further_step(
    deployment: Deployment,
    notes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_run: Callable[..., Any],
) -> None:
    # Named in .env, which each step reads again, as it asks NVML again where there are GPUs.
    monkeypatch.delenv("TS_FORECAST_DEVICES")
    monkeypatch.chdir(tmp_path)
    names = tmp_path / ".env"
    names.write_text("TS_FORECAST_DEVICES=fake-a,fake-b\n")
    run = start_run("four_trainings", config_for(notes, *FOUR, "prepare", seconds=1.5))
    first = wait_for(lambda: (found := trainings(notes)) and len(found) == 2 and found)
    lost = next(note for note in first if note["device"] == "fake-b")

    names.write_text("TS_FORECAST_DEVICES=fake-a\n")
    os.kill(lost["pid"], signal.SIGSEGV)

    run.wait(timeout=30)
    assert {note["device"] for note in trainings(notes)[2:]} == {"fake-a"}
    assert {note["step"] for note in trainings(notes)} == set(FOUR)
    assert "killed by SIGSEGV" in failure_of(deployment, last_run(deployment).run_id)
    assert claimed_slots(deployment) == set()
    assert_devices_are_free(deployment)


def test_sigkill_of_the_run__ends_its_steps_frees_all_and_fails_it_within_5_s(
    deployment: Deployment, notes: Path, start_run: Callable[..., Any]
) -> None:
    run = start_run("one_training", config_for(notes, "train", seconds=60))
    (note,) = wait_for(lambda: started(notes))
    family = family_of(run, note["pid"])
    assert note["pid"] in {process.pid for process in family}

    killed = time.monotonic()
    run.kill()
    run.wait()

    wait_for(lambda: not claimed_slots(deployment), seconds=5)
    wait_for(lambda: last_run(deployment).status == dg.DagsterRunStatus.FAILURE, seconds=5)
    assert_devices_are_free(deployment)
    assert time.monotonic() - killed < 5
    wait_for(lambda: not any(is_running(process.pid) for process in family), seconds=5)
    # The step had the time to write down its own end.
    assert read_notes(notes)[-1]["what"] == "DagsterExecutionInterruptedError"


def test_cancellation__interrupts_steps_that_run_and_steps_that_wait(
    deployment: Deployment, notes: Path, start_run: Callable[..., Any]
) -> None:
    locks, devices = deployment.settings.home / "locks", find_devices(deployment.settings)
    # One device is taken by a process outside: one of the two launched steps waits for it.
    config = config_for(notes, *FOUR, "prepare", seconds=60)
    config["execution"] = {"config": {"preload": [], "termination_grace_seconds": 30}}
    with take_device(locks, devices, holder="test"):
        run = start_run("four_trainings", config)
        wait_for(lambda: {"prepare"} < {note["step"] for note in started(notes)})
        family = family_of(run, *(note["pid"] for note in started(notes)))
        time.sleep(0.5)
        assert len(started(notes)) == 2

        run.send_signal(signal.SIGINT)

        # Long before the grace has passed: nobody had to be killed.
        run.wait(timeout=15)
    ends = {note["what"] for note in read_notes(notes)} - {"start"}
    assert ends == {"DagsterExecutionInterruptedError"}
    assert not any(is_running(process.pid) for process in family)
    assert last_run(deployment).is_finished
    assert claimed_slots(deployment) == set()
    assert_devices_are_free(deployment)


def test_executor__refuses_to_preload_what_is_not_installed(deployment: Deployment) -> None:
    with pytest.raises(SettingsError, match="preload no_such_library"):
        execute(
            deployment,
            "one_preparation",
            {"execution": {"config": {"preload": ["no_such_library"]}}},
        )
