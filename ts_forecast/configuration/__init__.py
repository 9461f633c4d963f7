"""Settings that live in the database (``system_config``): shared by all hosts, changed while things run.

Where do I go to …?
- read or write one, typed and checked: ``values``
- know how its type and its text belong together: ``kinds``
- encrypt one, or change the keys: ``secrets``

What a host needs to find the database at all comes from its environment: ``ts_forecast.settings``.
"""
