"""Where log records go: one file for all processes of a host, ``system_logs``, and stderr at last.

Where do I go to …?
- have it all set up in a process: ``setup``
- say what records are about (run, pipeline, quarter): ``context``
- know what becomes of a record, its secrets and its bad characters: ``records``, ``masking``
- change how lines look: ``formatters``; where they are written: ``files``, ``database``
"""
