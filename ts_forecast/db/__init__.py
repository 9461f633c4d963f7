"""The database's mechanics: connections, transactions, locks, bulk transfer, partitions, migrations.

Where do I go to …?
- open the deployment's database: ``database``; the private server behind it: ``embedded``
- commit something, or take a lock: ``engine``
- move Arrow tables in and out: ``arrow``
- make or list partitions of predictions: ``partitions``
- upgrade the schema: ``migrate``

What the tables are is ``ts_forecast.tables``.
"""
