"""Dagster's side of ts-forecast: thin asset bodies and what makes definitions of them.

Where do I go to …?
- see all definitions together: ``definitions``
- change a partition or a mapping: ``partitions``
- change what an asset shows in the UI: ``metadata``, ``plots``
- find an asset's body: ``datasets``, ``training``, ``predictions``, ``summaries``
- materialize without the UI: ``materialize``; serve the UI: ``serve``
"""
