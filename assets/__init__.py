"""Dagster's side of ts-forecast: thin asset bodies and what makes definitions of them.

Where do I go to …?
- see all definitions together: ``definitions``
- change a partition or a mapping: ``partitions``
- change what an asset shows in the UI: ``metadata``, ``plots``
- see how checks are shown: ``checks``; who hears of failures: ``failure_sensors``
- find an asset's body: ``datasets``, ``training``, ``predictions``, ``summaries``
- find what watches for new files: ``sensors``; what became of the runs it asked for: ``arrival_runs``
- keep the database well, every day: ``maintenance``
- launch and follow backfills: ``backfill``, ``backfill_progress``, ``backfill_command``
- materialize without the UI: ``materialize``; serve the UI: ``serve``; end it: ``guard``
"""

import gc
import warnings

# Loading the definitions makes half a million objects that all stay: looking for garbage among them so
# often is a tenth of its time.
gc.set_threshold(50_000, 100, 10)

from dagster import BetaWarning, PreviewWarning  # noqa: E402

# Both parameters are in use since their betas began; the warning at each of many assets says no more.
warnings.filterwarnings(
    "ignore",
    message=".*(backfill_policy|pool).*",
    category=BetaWarning,
)
# Checks that know their partition are in use since they began, too.
warnings.filterwarnings(
    "ignore", message=".*partitions_def on an AssetCheckSpec", category=PreviewWarning
)
# The job runs one range in one run, whatever the assets' backfill policies are.
warnings.filterwarnings("ignore", message="Asset job materialize_.* varying BackfillPolicies")
