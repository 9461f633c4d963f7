"""Looking after a deployment, and forecasting a file once without one.

- what a newcomer can get wrong: ``doctor``
- whether a pipeline file and its source fit: ``pipeline_check``
- whether quarters are done: ``currency``
- the demo's data: ``demo_data``
- one file, some models, now: ``one_shot``
"""
