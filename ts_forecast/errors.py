"""Every exception that ts-forecast raises on purpose.

One root, so that callers can catch what is ours and let the rest through. A message says what was
wrong, where (file, row, column, pipeline, quarter) and what to do. Formatting for terminals and for
Dagster lives with them, not here.
"""

from __future__ import annotations


class TsForecastError(Exception):
    """Root of all errors of this package.

    Args:
        problem: what is wrong and where, one sentence.
        remedy: what the reader can do about it, one sentence.
    """

    exit_code = 1

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (executor steps); keyword arguments do not pickle by default.
        return _rebuild, (type(self), self.problem, self.remedy)


def _rebuild(kind: type[TsForecastError], problem: str, remedy: str) -> TsForecastError:
    return kind(problem, remedy=remedy)


class SettingsError(TsForecastError):
    """The environment or the .env file holds something that cannot work."""

    exit_code = 2


class ConfigurationError(TsForecastError):
    """A setting of the database is absent, does not fit its type, or cannot be decrypted."""

    exit_code = 2


class PipelineError(TsForecastError):
    """A pipeline file is wrong; nothing of it was loaded."""

    exit_code = 2


class SourceError(TsForecastError):
    """A source file was refused; nothing of it was written."""

    exit_code = 3


class DatasetError(TsForecastError):
    """A stored dataset partition is missing, damaged or not what its row says."""

    exit_code = 3


class TrainingError(TsForecastError):
    """A model could not be fitted."""

    exit_code = 4


class OutOfMemoryError(TrainingError):
    """A fit needs more memory than there is; tells how much, and what to make smaller."""


class PrunedError(TsForecastError):
    """A trial of a search was ended early, for it was behind the others; no failure."""


class PredictionError(TsForecastError):
    """A forecast could not be made or is not finite."""

    exit_code = 4


class EvaluationError(TsForecastError):
    """A slice could not be scored."""

    exit_code = 4


class ArtifactError(TsForecastError):
    """A stored file is missing or does not match its hash."""

    exit_code = 4


class RegistryError(TsForecastError):
    """No such registered version, or it may not enter that stage; nothing was changed."""

    exit_code = 4


class StorageError(TsForecastError):
    """A place outside of this host cannot be used, or does not answer; its content was not judged."""

    exit_code = 5


class DatabaseError(TsForecastError):
    """The database is unreachable, of another revision, or refused an operation."""

    exit_code = 5


class LockedError(DatabaseError):
    """Another session kept a lock for longer than a change may wait; nothing was changed."""


class CommitUnknownError(DatabaseError):
    """The connection was lost in a COMMIT, and PostgreSQL cannot say any more what became of it."""


class PublishError(DatabaseError):
    """A slice could not be published; readers still see the previous one."""


class DeviceError(TsForecastError):
    """No device or slot could be had."""

    exit_code = 6
