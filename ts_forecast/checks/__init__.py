"""Whether what was made can be believed: checks of data, models, forecasts and accuracies.

Where do I go to …?
- see what a check's result is, and which of them stop what depends on it: ``result``
- check a quarter's observations: ``observations``; their drift from the training window: ``drift``
- check that no model has seen its own quarter: ``leakage``
- check a slice against its definition and its history: ``forecasts``
- check what scoring found: ``accuracy``

Limits come from the pipeline file (``check_limits``). Nothing here changes anything; telling people is
Dagster's side.
"""
