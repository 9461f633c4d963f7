"""Stages: only what is legal, one in production a quarter, whoever decides at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import IntegrityError

from tests.registry.conftest import QUARTER, Registry
from ts_forecast.db.engine import transaction
from ts_forecast.errors import RegistryError
from ts_forecast.registry import stages
from ts_forecast.registry.stages import LEGAL, Decision
from ts_forecast.tables.registry import RegisteredModel

ANN = Decision("ann", "it was better in March")
START = QUARTER.start.date()


def look(engine: Engine, key: tuple[str, int]) -> RegisteredModel:
    with transaction(engine) as session:
        return stages.find_version(session, *key)


def decide(
    engine: Engine, action: stages.Action, key: tuple[str, int], decision: Decision = ANN
) -> RegisteredModel:
    with transaction(engine, user=decision.by) as session:
        return stages.decide(session, action, *key, decision)


def test_promote__second_version__replaces_the_first_and_says_who_and_why(
    registry: Registry,
) -> None:
    first, second = registry.register(["Naive", "SeasonalNaive"])
    decide(registry.engine, "promote", first)

    decide(registry.engine, "promote", second, Decision("bob", "new data"))

    old, new = look(registry.engine, first), look(registry.engine, second)
    assert (old.current_stage, old.previous_stage) == ("archived", "production")
    assert (new.current_stage, new.previous_stage) == ("production", "staging")
    assert (new.approved_by, new.approval_notes) == ("bob", "new data")
    assert new.approved_at == new.deployed_at == new.stage_transition_at
    assert new.deployed_at is not None and old.deployed_at is not None
    assert new.deployed_at > old.deployed_at
    assert old.metadata_ is not None and old.metadata_["decision"]["verdict"] == "replaced"
    with registry.engine.connect() as connection:
        audited = connection.execute(
            text(
                "SELECT user_id, changed_fields ->> 'current_stage' FROM audit.audit_logs "
                "WHERE table_name = 'model_registry' AND operation_type = 'UPDATE' "
                "AND changed_fields ? 'current_stage' ORDER BY audit_id"
            )
        ).all()
    assert audited == [("ann", "production"), ("bob", "archived"), ("bob", "production")]


def test_promote__other_quarter_and_pipeline__is_left_alone(registry: Registry) -> None:
    (here,) = registry.register(["Naive"])
    (there,) = registry.register(["Naive"], QUARTER.shift(1))

    decide(registry.engine, "promote", here)
    decide(registry.engine, "promote", there)

    assert {look(registry.engine, key).current_stage for key in (here, there)} == {"production"}


@pytest.mark.parametrize("start", ["production", "archived"])
def test_change_stage__not_legal__is_refused_with_what_is(registry: Registry, start: str) -> None:
    (key,) = registry.register(["Naive"])
    decide(registry.engine, "promote" if start == "production" else "reject", key)
    target: stages.Stage = "staging" if start == "production" else "production"

    with pytest.raises(RegistryError, match=f"is in {start} and may not enter {target}"):
        with transaction(registry.engine) as session:
            stages.change_stage(session, stages.find_version(session, *key), target)

    assert look(registry.engine, key).current_stage == start


def test_decide__wrong_stage_name_or_person__is_refused(registry: Registry) -> None:
    (key,) = registry.register(["Naive"])
    with pytest.raises(RegistryError, match="no candidate"):
        decide(registry.engine, "approve", key)
    with pytest.raises(RegistryError, match="The last version of demo/Naive is 1"):
        decide(registry.engine, "promote", ("demo/Naive", 2))
    with pytest.raises(RegistryError, match="registry list"):
        decide(registry.engine, "promote", ("demo/nothing", 1))
    with pytest.raises(RegistryError, match="who decides and why"):
        Decision("ann", " ")
    decide(registry.engine, "promote", key)
    with pytest.raises(RegistryError, match="not in staging"):
        decide(registry.engine, "reject", key)
    with pytest.raises(RegistryError, match="may not enter production"):
        decide(registry.engine, "promote", key)


def test_approve__candidate__goes_into_production_with_its_evidence(registry: Registry) -> None:
    first, second = registry.register(["Naive", "SeasonalNaive"])
    with transaction(registry.engine) as session:
        stages.propose(session, stages.find_version(session, *first), {"metric": "mae"})
        stages.propose(session, stages.find_version(session, *second), {"metric": "rmse"})
    assert not stages.is_candidate(look(registry.engine, first))

    decide(registry.engine, "approve", second)

    found = look(registry.engine, second)
    assert (found.current_stage, found.approved_by) == ("production", "ann")
    assert found.metadata_ is not None
    assert found.metadata_["evidence"] == {"metric": "rmse"}
    assert "candidate" not in found.metadata_


def test_rollback__twice__goes_back_step_by_step_and_then_says_that_there_is_nothing(
    registry: Registry,
) -> None:
    keys = registry.register(["Naive", "SeasonalNaive", "Third"])
    for key in keys:
        decide(registry.engine, "promote", key)

    def roll() -> str:
        with transaction(registry.engine) as session:
            _, now = stages.rollback(session, registry.experiment_id, START, ANN)
            return now.registered_model_name

    assert [roll(), roll()] == ["demo/SeasonalNaive", "demo/Naive"]
    with pytest.raises(RegistryError, match="nothing was there before"):
        roll()
    assert look(registry.engine, keys[0]).current_stage == "production"
    assert all(stages.is_refused(look(registry.engine, key)) for key in keys[1:])


def test_promote__eight_at_once__one_is_in_production_and_none_fails(registry: Registry) -> None:
    keys = registry.register([f"m{number}" for number in range(8)])
    start = Barrier(len(keys))

    def race(key: tuple[str, int]) -> None:
        start.wait()
        decide(registry.engine, "promote", key)

    with ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(race, keys))

    found = [look(registry.engine, key) for key in keys]
    assert sorted(one.current_stage for one in found) == ["archived"] * 7 + ["production"]
    champion = max(found, key=lambda one: one.deployed_at or START)
    assert champion.current_stage == "production"


def test_approve__two_at_once_of_one_candidate__one_wins(registry: Registry) -> None:
    (key,) = registry.register(["Naive"])
    with transaction(registry.engine) as session:
        stages.propose(session, stages.find_version(session, *key), {})
    start = Barrier(2)

    def race(by: str) -> str:
        start.wait()
        try:
            decide(registry.engine, "approve", key, Decision(by, "x"))
        except RegistryError:
            return "refused"
        return by

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(race, ["ann", "bob"]))

    (winner,) = set(ends) - {"refused"}
    assert "refused" in ends
    assert look(registry.engine, key).approved_by == winner


def test_database__second_in_production_past_the_code__is_refused(registry: Registry) -> None:
    registry.register(["Naive", "SeasonalNaive"])

    with pytest.raises(IntegrityError, match="uq_registry_champion"):
        with registry.engine.begin() as connection:
            connection.execute(text("UPDATE model_registry SET current_stage = 'production'"))


def test_database__another_pipelines_place__cannot_be_claimed(registry: Registry) -> None:
    registry.register(["Naive"])
    with registry.engine.begin() as connection:
        connection.execute(
            text("UPDATE model_registry SET experiment_id = NULL, quarter_start = '1999-01-01'")
        )
        row = connection.execute(
            text("SELECT experiment_id, quarter_start FROM model_registry")
        ).one()

    assert row == (registry.experiment_id, START)


class Stages(RuleBasedStateMachine):
    """Any sequence of decisions, against a model that knows the rules by heart."""

    registry: Registry
    keys: list[tuple[str, int]]

    def __init__(self) -> None:
        super().__init__()
        self.keys = self.registry.register(["a", "b", "c"])
        self.stage = dict.fromkeys(self.keys, "staging")
        self.candidate: tuple[str, int] | None = None

    @rule(place=st.integers(0, 2))
    def promote(self, place: int) -> None:
        key = self.keys[place]
        if self._act("promote", key, legal=self.stage[key] != "production"):
            self._champion(key)

    @rule(place=st.integers(0, 2))
    def approve(self, place: int) -> None:
        key = self.keys[place]
        if self._act("approve", key, legal=self.candidate == key):
            self._champion(key)

    @rule(place=st.integers(0, 2))
    def reject(self, place: int) -> None:
        key = self.keys[place]
        if self._act("reject", key, legal=self.stage[key] == "staging"):
            self.stage[key] = "archived"
            self.candidate = None if self.candidate == key else self.candidate

    @rule(place=st.integers(0, 2))
    def propose(self, place: int) -> None:
        key = self.keys[place]
        try:
            with transaction(self.registry.engine) as session:
                stages.propose(session, stages.find_version(session, *key), {})
        except RegistryError:
            assert self.stage[key] == "production"
        else:
            assert self.stage[key] != "production"
            self.stage[key], self.candidate = "staging", key

    @rule(place=st.integers(0, 2), to=st.sampled_from(sorted(LEGAL)))
    def change(self, place: int, to: Any) -> None:
        """The bare transition: what is not legal leaves everything as it was."""
        key = self.keys[place]
        if to in LEGAL[self.stage[key]]:
            return  # The decisions above do these.
        with pytest.raises(RegistryError), transaction(self.registry.engine) as session:
            stages.change_stage(session, stages.find_version(session, *key), to)

    def _act(self, action: stages.Action, key: tuple[str, int], *, legal: bool) -> bool:
        try:
            decide(self.registry.engine, action, key)
        except RegistryError:
            assert not legal
            return False
        assert legal
        return True

    def _champion(self, key: tuple[str, int]) -> None:
        for other, stage in self.stage.items():
            self.stage[other] = "archived" if stage == "production" else stage
        self.stage[key] = "production"
        self.candidate = None if self.candidate == key else self.candidate

    @invariant()
    def agrees(self) -> None:
        query = select(RegisteredModel).where(
            RegisteredModel.experiment_id == self.registry.experiment_id,
            RegisteredModel.registered_model_name.in_([name for name, _ in self.keys]),
            RegisteredModel.model_version == self.keys[0][1],
        )
        with transaction(self.registry.engine) as session:
            rows = session.scalars(query).all()
        found = {(row.registered_model_name, row.model_version): row for row in rows}
        assert {key: row.current_stage for key, row in found.items()} == self.stage
        assert list(self.stage.values()).count("production") <= 1
        waiting = [key for key, row in found.items() if stages.is_candidate(row)]
        assert waiting == ([] if self.candidate is None else [self.candidate])
        for row in rows:
            assert row.current_stage in LEGAL[row.previous_stage or "none"]

    def teardown(self) -> None:
        with self.registry.engine.begin() as connection:
            connection.execute(text("UPDATE model_registry SET current_stage = 'archived'"))


def test_stages__any_sequence_of_decisions__keeps_the_rules(registry: Registry) -> None:
    Stages.registry = registry

    run_state_machine_as_test(
        Stages,
        settings=settings(
            max_examples=12,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
