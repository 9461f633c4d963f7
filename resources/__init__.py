"""Where Dagster meets ts_forecast: resources, the executor and the instance that runs are kept in.

Where do I go to …?
- start a step's process, stop it, see whether it lives: ``gpu_executor``, on ``forkserver`` (the
  run's side) and ``forkserver_process`` (the server's side)
- run steps on a Ray cluster: ``ray_executor``, on ``ray_cluster``
- see how a step ended: ``step_events``; what becomes of rows that killed steps left: ``lost_runs``
- see what happens inside a step's process before Dagster takes over: ``step_process``
- launch a run, end it, see whether its process lives: ``run_launcher``; that process: ``run_process``
- have a process with the libraries imported before a run asks for one: ``zygote``, ``zygote_process``;
  which libraries, in what environment: ``preloads``
- count GPUs and CPU slots, give one to a step: ``devices``, ``device_locks``; confine a process to it:
  ``confinement``; bound how many steps have one at once: ``gpu_pool``
- lend slots that nobody uses to a step: ``free_slots``; what runs on them: ``slot_process``;
  who wants one most: ``slot_wishes``
- prepare DAGSTER_HOME and the environment of Dagster's processes: ``instance``
- change how Dagster keeps its events and its pool slots: ``event_log``
- reach the database from an asset: ``postgres``
"""
