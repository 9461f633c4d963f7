"""The subcommands of ``ts-forecast``, one module a theme: arguments in, tables out.

What they do is done by ``operations`` and the rooms below; Dagster's side is started as a process.
"""
