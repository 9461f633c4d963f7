"""The guard of host memory: what it counts, how long it waits, what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.test_trainer import panel, pipeline
from ts_forecast.errors import OutOfMemoryError, TrainingError
from ts_forecast.pipeline import Pipeline
from ts_forecast.training import neural_fit
from ts_forecast.training.batches import halved, is_out_of_memory
from ts_forecast.training.memory import MemoryNeed, host_memory, memory_need, require_memory
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


def test_require_memory__enough__returns_at_once() -> None:
    require_memory(NEED, "shop", wait=0, measure=lambda: (4 * GIB, 4 * GIB))


def test_require_memory__others_give_it_back__waits_for_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ts_forecast.training.memory._POLL_SECONDS", 0.01)
    caplog.set_level("INFO")
    free = iter([GIB, 2 * GIB, 4 * GIB])

    require_memory(NEED, "shop", wait=60, measure=lambda: (next(free), 8 * GIB))

    assert "shop waits for memory: 2.66 GiB needed, 1.00 GiB free." in caplog.messages
    assert next(free, None) is None


def test_require_memory__never_free__fails_after_the_wait_with_the_figures() -> None:
    with pytest.raises(
        OutOfMemoryError, match=r"2\.66 GiB.*dataset 1\.00 GiB.*within 0 s"
    ) as caught:
        require_memory(NEED, "shop", wait=0.05, measure=lambda: (GIB, 8 * GIB))

    assert isinstance(caught.value, TrainingError)
    assert "window_quarters" in caught.value.remedy


def test_require_memory__more_than_the_host_has__does_not_wait() -> None:
    with pytest.raises(OutOfMemoryError, match=r"of 2\.00 GiB are free at all"):
        require_memory(NEED, "shop", wait=3600, measure=lambda: (GIB, 2 * GIB))


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
