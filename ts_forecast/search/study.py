"""A search's study: Optuna's record of its trials, in the schema ``optuna`` of our database.

It outlives the process that searches, so that a search goes on where a killed one ended, and several
processes can work on it at once. Optuna makes and upgrades its own tables there, as Dagster does its
own. Our rows of the same trials are ``runs``; what a trial does is ``trial``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError

from ts_forecast.db.engine import exclusive, lock_key
from ts_forecast.errors import DatabaseError
from ts_forecast.search.sampling import AGAIN, places, pruner_of, seeded_sampler
from ts_forecast.training.search import Search

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial

SCHEMA = "optuna"
# A combination whose process dies so often is taken for the cause of it.
_ATTEMPTS = 5
_FINISHED, _FORCED = "finished", "forced"


@dataclass(frozen=True)
class Study:
    """A study that is open in this process.

    Invariants:
        - as many places are handed out as the search has trials, however many processes ask
        - a trial is handed out once, unless the process that had it is gone
    """

    name: str
    optuna: OptunaStudy
    engine: Engine
    trials: int

    def claim(self) -> Trial | None:
        """The next trial, ours alone to run; None when all are handed out."""
        with self._alone():
            newest = self.newest()
            waits = any(trial.state.name == "WAITING" for trial in newest.values())
            if not waits and len(newest) >= self.trials:
                return None
            return self.optuna.ask()

    def newest(self) -> dict[int, FrozenTrial]:
        """The last attempt at each place, places ascending."""
        trials = self.optuna.get_trials(deepcopy=False)
        place = places(trials)
        return dict(sorted({place[trial.number]: trial for trial in trials}.items()))

    def left(self) -> int:
        """Trials that nobody has yet."""
        newest = self.newest()
        waiting = sum(trial.state.name == "WAITING" for trial in newest.values())
        return max(0, self.trials - len(newest)) + waiting

    def retire_lost(self) -> int:
        """Have the trials of processes that are gone made again; returns how many there were.

        Only for whoever knows that no process works on the study: nothing here can tell a slow one
        from a dead one. A lost trial is ``FAIL`` to Optuna, and a new one waits with its parameters.
        """
        from optuna.trial import TrialState

        with self._alone():
            trials = self.optuna.get_trials(deepcopy=False)
            place = places(trials)
            lost = [trial for trial in trials if trial.state == TrialState.RUNNING]
            again = {trial.user_attrs.get(AGAIN) for trial in trials}
            for trial in lost:
                attempts = sum(place[t.number] == place[trial.number] for t in trials)
                # The successor first: killed in between, this finds it and makes no second one.
                if trial.number not in again and attempts < _ATTEMPTS:
                    self.optuna.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
                self.optuna.tell(trial.number, state=TrialState.FAIL)
        return len(lost)

    def finish(self) -> None:
        """Note that the search has ended: a forced repetition begins a study of its own."""
        self.optuna.set_user_attr(_FINISHED, True)

    def discard(self) -> None:
        """Forget the study: whoever searches again begins anew."""
        import optuna

        optuna.delete_study(study_name=self.name, storage=self.optuna._storage)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with exclusive(self.engine, "search", self.name):
            yield


@contextmanager
def open_study(
    engine: Engine, search: Search, name: str, *, force: bool = False
) -> Iterator[Study]:
    """The study of a search: as it was left, or a new one.

    Args:
        name: says what is searched; the same search has the same one.
        force: a new study, unless the newest is that of a forced search which did not end. Studies
            of forced searches are called ``<name> #1`` and so on.

    Raises:
        DatabaseError: the schema cannot be made, or the database is lost on the way.
    """
    with _storage(engine) as storage:
        import optuna

        current, count = name, 0
        while _exists(storage, follower := f"{name} #{count + 1}"):
            current, count = follower, count + 1
        if force and _exists(storage, current):
            attributes = optuna.load_study(study_name=current, storage=storage).user_attrs
            if attributes.get(_FINISHED) or not attributes.get(_FORCED):
                current = f"{name} #{count + 1}"
        study = _opened(storage, engine, search, current)
        if force:
            study.optuna.set_user_attr(_FORCED, True)
        yield study


@contextmanager
def join_study(engine: Engine, search: Search, name: str) -> Iterator[Study]:
    """The study that another process has opened."""
    with _storage(engine) as storage:
        yield _opened(storage, engine, search, name)


def _exists(storage: RDBStorage, name: str) -> bool:
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


def _opened(storage: RDBStorage, engine: Engine, search: Search, name: str) -> Study:
    import optuna

    study = optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=seeded_sampler(search),
        pruner=pruner_of(search),
        direction="minimize",
        load_if_exists=True,
    )
    return Study(name, study, engine, search.trials)


@contextmanager
def _storage(engine: Engine) -> Iterator[RDBStorage]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _ensure_schema(engine)
    try:
        # Its tables are made where they are absent: two that begin at once would collide.
        with exclusive(engine, "optuna.schema"):
            storage = optuna.storages.RDBStorage(
                _url(engine.url).render_as_string(hide_password=False),
                engine_kwargs={"pool_size": 1, "max_overflow": 2, "pool_pre_ping": True},
            )
    except RuntimeError as error:
        raise DatabaseError(
            f"Optuna cannot use its tables in the schema {SCHEMA}: {' '.join(str(error).split())}",
            remedy=f"Upgrade them as Optuna says, or drop the schema {SCHEMA}: it holds "
            "how searches go on, their results are in runs.",
        ) from error
    try:
        yield storage
    except optuna.exceptions.StorageInternalError as error:
        raise DatabaseError(
            f"The study's storage failed: {' '.join(str(error.__cause__ or error).split())}.",
            remedy="Start the search again; it goes on with the trials that are left.",
        ) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _ensure_schema(engine: Engine) -> None:
    # CREATE … IF NOT EXISTS still races and needs a right that readers lack: look first.
    with engine.begin() as connection:
        if connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}) is not None:
            return
        key = {"key": lock_key("optuna.schema")}
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), key)
        try:
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        except DBAPIError as error:
            raise DatabaseError(
                f"The database refuses the schema {SCHEMA}: {str(error.orig).splitlines()[0]}.",
                remedy=f"Have its owner run: CREATE SCHEMA {SCHEMA} AUTHORIZATION <your role>;",
            ) from error


def _url(url: URL) -> URL:
    # The last search_path counts.
    options = [*url.normalized_query.get("options", ()), f"-csearch_path={SCHEMA}"]
    return url.update_query_dict({"options": " ".join(options)})
