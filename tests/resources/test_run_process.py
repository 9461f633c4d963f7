"""Runs whose workers the zygote bears: begun once, cancelled whenever it is asked for, missed when dead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import executor_jobs
import psutil
import pytest
from dagster._core.launcher import LaunchRunContext
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._grpc.server import GrpcServerCommand
from executor_harness import Deployment, config_for, is_running, read_notes, wait_for

from resources import run_launcher
from resources.preloads import zygote_of
from resources.run_launcher import WatchedRunLauncher

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="zygotes rest on pidfds")


@pytest.fixture
def launcher(deployment: Deployment) -> WatchedRunLauncher:
    """The deployment's, whose zygote has its libraries."""
    zygote = zygote_of(deployment.settings)
    wait_for(zygote.seems_there, seconds=120)
    launcher = deployment.instance.run_launcher
    assert isinstance(launcher, WatchedRunLauncher)
    return launcher


def new_run(deployment: Deployment, name: str, config: dict[str, Any]) -> dg.DagsterRun:
    """A run as the daemon finds it when it launches it."""
    job = dg.reconstructable(getattr(executor_jobs, name))
    return deployment.instance.create_run_for_job(
        job.get_definition(),
        run_config=config,
        status=dg.DagsterRunStatus.STARTING,
        job_code_origin=job.get_python_origin(),
    )


def launch(launcher: WatchedRunLauncher, run: dg.DagsterRun) -> None:
    launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))


def status(deployment: Deployment, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = deployment.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def worker_of(deployment: Deployment, run: dg.DagsterRun) -> psutil.Process:
    """The process that holds a run."""
    lock = deployment.settings.home / "locks" / "runs" / f"{run.run_id}.lock"
    return psutil.Process(int(lock.read_text().split()[0]))


def test_launch__zygote_fits__the_worker_is_born_of_it(
    deployment: Deployment, launcher: WatchedRunLauncher, notes: Path
) -> None:
    run = new_run(deployment, "one_training", config_for(notes, "train", seconds=0.5))
    launch(launcher, run)
    worker = worker_of(deployment, run)
    parent = worker.parent()
    assert parent is not None and "resources.zygote_process" in parent.cmdline()

    wait_for(lambda: status(deployment, run) == dg.DagsterRunStatus.SUCCESS)

    assert [note["what"] for note in read_notes(notes)] == ["start", "end"]
    words = [entry.message for entry in deployment.instance.all_logs(run.run_id)]
    assert f"Started process for run (pid: {worker.pid})." in words
    wait_for(lambda: not is_running(worker.pid), seconds=5)


@pytest.mark.parametrize("is_running_already", [True, False])
def test_terminate__by_another_process__interrupts_and_cancels(
    deployment: Deployment, launcher: WatchedRunLauncher, notes: Path, is_running_already: bool
) -> None:
    run = new_run(deployment, "one_training", config_for(notes, "train", seconds=60))
    launch(launcher, run)
    if is_running_already:
        wait_for(lambda: read_notes(notes))

    # The webserver has an instance of its own.
    with dg.DagsterInstance.get() as other:
        assert other.run_launcher.terminate(run.run_id) is True

    wait_for(lambda: status(deployment, run) == dg.DagsterRunStatus.CANCELED, seconds=10)
    ends = {note["what"] for note in read_notes(notes)} - {"start"}
    assert ends == ({"DagsterExecutionInterruptedError"} if is_running_already else set())
    assert launcher.terminate(run.run_id) is False


def test_terminate__worker_of_another_container__signals_no_process_of_that_number(
    deployment: Deployment,
    launcher: WatchedRunLauncher,
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = new_run(deployment, "one_training", config_for(notes, "train", seconds=1))
    launch(launcher, run)
    wait_for(lambda: read_notes(notes))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(run_launcher, "_pid_space", lambda: "another kernel's")
        # Dagster's own way has nobody to ask: the run is none of a code server's.
        assert launcher.terminate(run.run_id) is False

    wait_for(lambda: status(deployment, run) in FINISHED_STATUSES)
    assert [note["what"] for note in read_notes(notes)] == ["start", "end"]


def test_worker_killed_before_anybody_watches_it__the_run_fails(
    deployment: Deployment,
    launcher: WatchedRunLauncher,
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_launcher, "_LAST_WORD_SECONDS", 0.1)
    run = new_run(deployment, "one_training", config_for(notes, "train"))
    launch(launcher, run)
    # Before it has loaded the job and started the servers of its steps.
    worker_of(deployment, run).kill()

    wait_for(lambda: status(deployment, run) == dg.DagsterRunStatus.FAILURE, seconds=10)

    words = [entry.message for entry in deployment.instance.all_logs(run.run_id)]
    assert "The run failed: its process has ended without a word." in words
    assert read_notes(notes) == []


def launched_by_dagster(
    deployment: Deployment, name: str, config: dict[str, Any], launch: Callable[..., None]
) -> dg.DagsterRun:
    """Launch a run of a real code server, and wait until it is done."""
    target = PythonFileTarget(executor_jobs.__file__, name, None, "jobs")
    servers = GrpcServerRegistry(
        instance_ref=deployment.instance.get_ref(),
        server_command=GrpcServerCommand.API_GRPC,
        heartbeat_ttl=30,
        startup_timeout=60,
        log_level="ERROR",
        wait_for_processes_on_shutdown=True,
    )
    with (
        servers,
        WorkspaceProcessContext(
            deployment.instance, target, grpc_server_registry=servers
        ) as process,
    ):
        workspace = process.create_request_context()
        (repository,) = workspace.get_code_location("jobs").get_repositories().values()
        remote = repository.get_full_job(name)
        run = deployment.instance.create_run_for_job(
            getattr(executor_jobs, name),
            run_config=config,
            status=dg.DagsterRunStatus.STARTING,
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
        )
        launch(LaunchRunContext(dagster_run=run, workspace=workspace))
        wait_for(lambda: status(deployment, run) == dg.DagsterRunStatus.SUCCESS)
    found = deployment.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def test_launch__no_zygote_fits__is_dagsters(
    deployment: Deployment,
    launcher: WatchedRunLauncher,
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Libraries read it when they are loaded, and the zygote had none.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")

    run = launched_by_dagster(
        deployment, "one_training", config_for(notes, "train"), launcher.launch_run
    )

    assert GRPC_INFO_TAG in run.tags
    assert [note["what"] for note in read_notes(notes)] == ["start", "end"]


def test_launch__worker_gets_ready_too_late__runs_once(
    deployment: Deployment,
    launcher: WatchedRunLauncher,
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_launcher, "_READY_SECONDS", 0.0)
    (zygote,) = [p for p in psutil.process_iter() if is_zygote_of(p, deployment)]
    before = set(zygote.children())

    run = launched_by_dagster(
        deployment, "one_training", config_for(notes, "train"), launcher.launch_run
    )

    assert GRPC_INFO_TAG in run.tags
    wait_for(lambda: set(zygote.children()) <= before)
    assert [note["what"] for note in read_notes(notes)] == ["start", "end"]


def is_zygote_of(process: psutil.Process, deployment: Deployment) -> bool:
    """Whether a process is the zygote that the deployment asks."""
    folder = str((deployment.settings.home / "zygotes").resolve())
    try:
        return folder in process.cmdline()
    except psutil.Error:
        return False
