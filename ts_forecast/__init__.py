"""The forecasting system. It never imports Dagster; ``resources`` and ``assets`` are where the two meet.

Where do I go to …?
- run a command: ``cli``, ``commands``
- see what a deployment can be configured to: ``settings``; what a pipeline file holds: ``pipeline``,
  ``pipeline_model``, ``pipeline_source``; why one was refused: ``pipeline_file``; which models there are:
  ``model_catalogue``
- reason about quarters, steps and cutoffs: ``quarters``, ``frequency``, ``cutoffs``
- open the database, commit, migrate: ``db``; know its tables: ``tables``
- read, validate and store data: ``datasets``
- find out what arrived and what it calls for: ``arrivals``
- train: ``training``; forecast and publish: ``predictions``; score: ``evaluation``
- share the quarters of a step out over processes: ``side_by_side``, ``quarter_desk``, on ``slots``
- judge a quarter: ``checks``, ``check_limits``; put it on one page: ``reports``
- choose a champion: ``evaluation.champion``, ``champion_rule``; its stages: ``registry.stages``
- search a model's parameters: ``search``; say what is searched: ``search_space``
- read or write a setting that lives in the database, or a secret: ``configuration``
- find out where log records go: ``logs``
- find out what was computed from what: ``tracking``; stored files and versions: ``registry``
- keep a deployment well, or forecast a file once: ``operations``
- raise an error: ``errors``; write a file that is there whole or not: ``files``
- name a place in a folder or an object store: ``places``; bring an object to this host: ``object_cache``
"""
