"""The guard of host memory: what it counts, how long it waits, what it says."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_trainer import REPOSITORY, panel, pipeline
from ts_forecast.errors import OutOfMemoryError, TrainingError
from ts_forecast.pipeline import Pipeline
from ts_forecast.training import neural_fit
from ts_forecast.training.activations import activation_bytes
from ts_forecast.training.batches import halved, is_out_of_memory
from ts_forecast.training.memory import MemoryNeed, host_memory, memory_need, reserved_memory
from ts_forecast.training.memory_ledger import Ledger
from ts_forecast.training.neural import build_neural
from ts_forecast.training.options import FitOptions
from ts_forecast.training.trainer import fit_model

GIB = 2**30
NEED = MemoryNeed(dataset=GIB, batch=GIB, windows=0, weights=0)


def need(pipe: Pipeline, val_size: int = 0) -> MemoryNeed:
    data = panel(pipe)
    return memory_need(build_neural(pipe, pipe.models[0], data.n_series), data, 4, val_size)


def test_memory_need__larger_batches_and_windows__need_more() -> None:
    small = pipeline({"model": "MLP", "parameters": {"input_size": 14, "batch_size": 1}})
    large = pipeline({"model": "MLP", "parameters": {"input_size": 14, "batch_size": 3}})

    assert need(large).batch == 3 * need(small).batch
    assert need(large).dataset == need(small).dataset
    assert (need(large).windows, need(large, val_size=21).windows > 0) == (0, True)


def test_memory_need__multivariate__counts_the_windows_of_all_series() -> None:
    pipe = pipeline(
        {"model": "TSMixer", "exogenous": [], "parameters": {"input_size": 14, "batch_size": 1}}
    )

    assert need(pipe).windows > 10 * need(pipe).dataset


def test_memory_need__more_windows_or_larger_layers__keep_more_of_the_insides() -> None:
    def of(**parameters: Any) -> int:
        given = {"input_size": 14, "windows_batch_size": 64, "hidden_size": 32, **parameters}
        return need(pipeline({"model": "MLP", "parameters": given})).activations

    assert of(windows_batch_size=128) == 2 * of()
    assert of(hidden_size=256) > 4 * of()
    assert of(input_size=140) > of()


def test_activation_bytes__counted__leaves_no_trace_in_the_fit() -> None:
    import torch

    pipe = pipeline({"model": "MLP", "parameters": {"input_size": 14}})
    model = build_neural(pipe, pipe.models[0], 3)
    before = torch.get_rng_state()

    assert activation_bytes(model, 3, validated=False) > 0

    assert (torch.get_rng_state() == before).all()
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("name", ["NHITS", "LSTM", "PatchTST", "TFT", "TSMixer", "TiDE", "TCN"])
def test_activation_bytes__architectures_and_their_exogenous_columns__are_known(name: str) -> None:
    entry: dict[str, Any] = {"model": name, "parameters": {"input_size": 14}}
    if name in ("PatchTST", "TSMixer"):
        entry["exogenous"] = []
    pipe = pipeline(entry)

    model = build_neural(pipe, pipe.models[0], 3)

    assert activation_bytes(model, 3, validated=True) > 0


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_reserved_memory__enough__returns_at_once(ledger: Ledger) -> None:
    with reserved_memory(NEED, "shop", wait=0, measure=lambda: (4 * GIB, 4 * GIB), ledger=ledger):
        pass


def test_reserved_memory__others_give_it_back__waits_for_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    monkeypatch.setattr("ts_forecast.training.memory._POLL_SECONDS", 0.01)
    caplog.set_level("INFO")
    free = iter([GIB, 2 * GIB, 4 * GIB])

    with reserved_memory(
        NEED, "shop", wait=60, measure=lambda: (next(free), 8 * GIB), ledger=ledger
    ):
        pass

    assert (
        "shop waits for memory: 2.66 GiB needed, 1.00 GiB free, 0.00 GiB of it promised to others."
    ) in caplog.messages
    assert next(free, None) is None


def test_reserved_memory__never_free__fails_after_the_wait_with_the_figures(ledger: Ledger) -> None:
    with (
        pytest.raises(
            OutOfMemoryError, match=r"2\.66 GiB.*dataset 1\.00 GiB.*within 0 s"
        ) as caught,
        reserved_memory(NEED, "shop", wait=0.05, measure=lambda: (GIB, 8 * GIB), ledger=ledger),
    ):
        pytest.fail("it began")

    assert isinstance(caught.value, TrainingError)
    assert "window_quarters" in caught.value.remedy


def test_reserved_memory__more_than_the_host_has__does_not_wait(ledger: Ledger) -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"of 2\.00 GiB are free at all"),
        reserved_memory(NEED, "shop", wait=3600, measure=lambda: (GIB, 2 * GIB), ledger=ledger),
    ):
        pytest.fail("it began")


def test_reserved_memory__two_at_once__never_count_on_the_same(ledger: Ledger) -> None:
    """Both see 4 GiB free and each needs 2.66: the second has to wait for the first one's end."""
    host = {"wait": 0.05, "measure": lambda: (4 * GIB, 8 * GIB), "ledger": ledger}
    with (
        reserved_memory(NEED, "first", **host),
        pytest.raises(OutOfMemoryError, match=r"2\.6\d GiB of them promised to other fits"),
        reserved_memory(NEED, "second", **host),
    ):
        pytest.fail("it began")

    with reserved_memory(NEED, "second", **host):
        pass


def test_reserved_memory__many_processes__at_most_as_many_as_fit(tmp_path: Path) -> None:
    """Of six that start together, memory suffices for one at a time."""
    # Each imports nothing: it is their start together that counts.
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [
        context.Process(target=hold_memory, args=(tmp_path / "ledger", queue)) for _ in range(6)
    ]
    for process in processes:
        process.start()
    spans = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()

    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


def hold_memory(folder: Path, queue: Any) -> None:
    """For a moment; what is free does not change, as in a fit that has just begun."""
    with reserved_memory(
        NEED, "one", wait=60, measure=lambda: (4 * GIB, 8 * GIB), ledger=Ledger(folder)
    ):
        begun = time.monotonic()
        time.sleep(0.1)
        queue.put((begun, time.monotonic()))


def test_ledger__memory_that_was_taken__is_no_longer_promised(ledger: Ledger) -> None:
    with ledger.alone(), ledger.reserve(256 * 2**20):
        before = ledger.outstanding()
        taken = bytearray(b"x" * (100 * 2**20))
        after = ledger.outstanding()

    assert before > 250 * 2**20
    assert 90 * 2**20 < before - after < 210 * 2**20, len(taken)
    assert ledger.outstanding() == 0


def test_ledger__process_that_was_killed__holds_nothing(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from ts_forecast.training.memory_ledger import Ledger
reservation = Ledger(Path({str(tmp_path)!r})).reserve(2**30)
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.fit"))) == 1

    assert Ledger(tmp_path).outstanding() == 0
    assert not list(tmp_path.glob("*.fit"))


def test_host_memory__container_with_a_limit__counts_it(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{200 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{150 * 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {50 * 2**20}\nactive_file 0\n")

    assert host_memory(tmp_path) == (100 * 2**20, 200 * 2**20)


def test_host_memory__no_limit__is_the_host(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    available, limit = host_memory(tmp_path)

    assert 0 < available <= limit
    assert limit > 200 * 2**20


def test_fit_model__host_too_small__is_refused_before_the_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = pipeline({"model": "MLP", "parameters": {"input_size": 14, "max_steps": 1}})
    monkeypatch.setattr("ts_forecast.training.memory.host_memory", lambda: (2**20, 2**20))
    monkeypatch.setattr(neural_fit, "fit_dataset", lambda *_: pytest.fail("it began"))

    with pytest.raises(OutOfMemoryError, match="Pipeline shop, model MLP: the fit is estimated"):
        fit_model(pipe, pipe.models[0], panel(pipe), FitOptions(memory_wait=0))


def test_is_out_of_memory__an_error_of_another_kind__is_not() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(MemoryError())


def test_is_out_of_memory__of_a_gpu__is() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))


def test_halved__multivariate__keeps_all_series_in_a_batch() -> None:
    assert halved({"batch_size": 10, "windows_batch_size": 64}, n_series=10) == {
        "batch_size": 10,
        "windows_batch_size": 32,
    }
