"""The database's mechanics: connections, transactions, locks, bulk transfer, partitions, migrations.

Where do I go to …?
- open the deployment's database: ``database``; the private server behind it: ``embedded``
- commit something, or take a lock: ``engine``; have it repeated when the connection is lost:
  ``retry``, ``faults``, ``commit``
- move Arrow tables in and out: ``arrow``
- make or list partitions of predictions: ``partitions``; of all that is cut by the calendar:
  ``calendar_partitions``, ``partition_list``, ``periods``
- change a table that others use: ``short_locks``
- upgrade the schema: ``migrate``

What the tables are is ``ts_forecast.tables``.
"""
