"""Looking after a deployment, and forecasting a file once without one.

- what a newcomer can get wrong: ``doctor``
- whether a pipeline file and its source fit: ``pipeline_check``
- whether quarters are done: ``currency``
- the demo's data: ``demo_data``
- whether the database is well: ``database_health``, ``schema_health``, ``server_state``
- what it does: ``database_activity``, ``database_connections``, ``database_statements``,
  ``database_scope``
- its size and upkeep: ``database_tables``, ``database_indexes``, ``database_maintenance``,
  ``materialized_views``, ``database_capacity``
- its partitions: ``partitions_ahead``, ``retention``, ``partition_archive``, ``archive_catalogue``
- one file, some models, now: ``one_shot``
"""
