"""The catalogue: what the installed libraries offer, known without importing them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ts_forecast.model_catalogue import catalogue

REPOSITORY = Path(__file__).parents[1]


def printed(code: str) -> object:
    """What the code prints last, in a process that has imported nothing yet."""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return json.loads(answer.stdout.strip().splitlines()[-1])


def test_snapshot__is_that_of_the_installed_libraries() -> None:
    found = printed(
        "import json, warnings; warnings.simplefilter('ignore'); "
        "from ts_forecast.model_catalogue import inspect_libraries; "
        "print(json.dumps(inspect_libraries()))"
    )
    stored = json.loads((REPOSITORY / "ts_forecast" / "model_catalogue.json").read_text())

    assert found == stored


def test_catalogue__read__imports_neither_library() -> None:
    heavy = printed(
        "import json, sys; from ts_forecast.model_catalogue import catalogue; catalogue(); "
        "print(json.dumps([n for n in ('torch', 'neuralforecast', 'statsforecast') "
        "if n in sys.modules]))"
    )

    assert heavy == []


def test_catalogue__well_known_models__can_what_their_papers_say() -> None:
    nhits, dlinear, tsmixer = (catalogue()[name] for name in ("NHITS", "DLinear", "TSMixer"))

    assert nhits.is_neural
    assert (nhits.future, nhits.historic, nhits.static) == (True, True, True)
    assert not (dlinear.future or dlinear.historic or dlinear.static)
    assert tsmixer.multivariate and not nhits.multivariate
    assert not catalogue()["SeasonalNaive"].is_neural


def test_parameters__what_the_pipeline_sets__cannot_be_set_twice() -> None:
    for kind in catalogue().values():
        assert not {"h", "loss", "random_seed", "futr_exog_list", "n_series"} & set(kind.parameters)
