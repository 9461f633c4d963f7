"""The champion: by the past alone, worse ones refused, people heard."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from sqlalchemy import Engine, text

from tests.registry.conftest import Registry
from ts_forecast.db.engine import transaction
from ts_forecast.evaluation.champion import (
    BY,
    ChampionChoice,
    choose_champion,
    record_production_metrics,
)
from ts_forecast.evaluation.champion_run import choose_of_quarter, due_choice, outdated_choices
from ts_forecast.pipeline import Pipeline
from ts_forecast.pipeline_file import parse_pipeline
from ts_forecast.quarters import Quarter
from ts_forecast.registry import stages
from ts_forecast.registry.stages import Decision
from ts_forecast.tables.evaluation import MetricSummary
from ts_forecast.tables.experiment import Run
from ts_forecast.tables.training import Model
from ts_forecast.tracking.experiments import ensure_experiment
from ts_forecast.tracking.runs import RunKey, supersede, tracked_run
from ts_forecast.training.quarter import trained_model

Q = Quarter(2024, 1)
NAMES = ("SeasonalNaive", "Naive")


def make_pipeline(**champion: object) -> Pipeline:
    content: dict[str, object] = {
        "name": "demo",
        "source": {"files": "demo.csv"},
        "frequency": "D",
        "horizon": 7,
        "start": "2022-01-01",
        "models": list(NAMES),
        "metrics": ["mae", "rmse"],
        "champion": {"quarters": 2, **champion},
    }
    return parse_pipeline(content, origin="test")


@pytest.fixture
def registry(engine: Engine) -> Registry:
    """Both models registered for Q and the quarters around it."""
    pipeline = make_pipeline()
    with transaction(engine) as session:
        made = Registry(engine, pipeline, ensure_experiment(session, pipeline))
    for shift in (-3, -2, -1, 0, 1):
        made.register(NAMES, Q.shift(shift))
    return made


def score(registry: Registry, quarter: Quarter, errors: Mapping[str, float]) -> None:
    """A standing evaluation of a quarter, in place of the one before it."""
    engine = registry.engine
    key = RunKey(registry.experiment_id, "evaluate", "e", f"{quarter.key}{errors}", quarter)
    with tracked_run(engine, key, force=True) as run, transaction(engine) as session:
        for name, error in errors.items():
            model = session.query(Model).filter_by(
                model_name=name, quarter_start=quarter.start.date()
            )
            session.add(
                MetricSummary(
                    run_id=run.run_id,
                    model_id=model.order_by(Model.model_id.desc()).limit(1).one().model_id,
                    metric_name="mae",
                    dataset_type="test",
                    mean_value=error,
                    sample_count=3,
                )
            )
        run.complete(session)
        supersede(session, registry.experiment_id, "evaluate", quarter, keep=run.run_id)


def choose(registry: Registry, quarter: Quarter = Q, **options: object) -> ChampionChoice:
    champion = {key: options.pop(key) for key in ("margin", "approval") if key in options}
    with transaction(registry.engine) as session:
        return choose_champion(session, make_pipeline(**champion), quarter, **options)  # type: ignore[arg-type]


def past(registry: Registry, seasonal: float = 2.0, naive: float = 1.0) -> None:
    for back in (-2, -1):
        score(registry, Q.shift(back), {"SeasonalNaive": seasonal, "Naive": naive})


def test_choose_champion__past_quarters__the_smallest_mean_goes_into_production(
    registry: Registry,
) -> None:
    score(registry, Q.shift(-2), {"SeasonalNaive": 1.0, "Naive": 4.0})
    score(registry, Q.shift(-1), {"SeasonalNaive": 3.0, "Naive": 1.0})

    choice = choose(registry)

    assert (choice.outcome, choice.model, choice.champion) == (
        "promoted",
        "SeasonalNaive",
        "demo/SeasonalNaive 4",
    )
    assert choice.scores["score"].tolist() == [2.0, 2.5]
    with transaction(registry.engine) as session:
        version = stages.find_version(session, "demo/SeasonalNaive", 4)
    assert (version.current_stage, version.approved_by) == ("production", BY)
    assert version.approval_notes == "SeasonalNaive: mae 2 over 2023-Q3 to 2023-Q4."
    again = choose(registry)
    assert (again.outcome, again.champion) == ("kept", choice.champion)


def test_choose_champion__own_and_later_and_too_old_quarters__change_nothing(
    registry: Registry,
) -> None:
    past(registry)
    before = choose(registry)
    # As tempting as can be: on all of them the loser is perfect and the winner useless.
    for shift in (-3, 0, 1):
        score(registry, Q.shift(shift), {"SeasonalNaive": 0.0, "Naive": 1e9})

    after = choose(registry)
    with registry.engine.begin() as connection:
        connection.execute(
            text("UPDATE model_registry SET current_stage = 'staging', metadata = '{}'")
        )
    from_scratch = choose(registry)

    assert before.model == after.model == from_scratch.model == "Naive"
    assert before.scores.equals(after.scores) and before.scores.equals(from_scratch.scores)
    assert choose(registry, Q.shift(1)).scores["score"].min() == 1.0  # 2, Q: 0.
    # The control: what it may read does change the choice.
    score(registry, Q.shift(-1), {"SeasonalNaive": 0.0, "Naive": 9.0})
    assert choose(registry).model == "SeasonalNaive"


def test_choose_champion__superseded_evaluation__is_not_read(registry: Registry) -> None:
    past(registry)
    score(registry, Q.shift(-1), {"SeasonalNaive": 0.1, "Naive": 5.0})

    assert choose(registry).model == "SeasonalNaive"


def test_choose_champion__nothing_scored_or_half_scored__chooses_nobody_who_was_not_there(
    registry: Registry,
) -> None:
    nothing = choose(registry)
    score(registry, Q.shift(-2), {"SeasonalNaive": 2.0})
    score(registry, Q.shift(-1), {"SeasonalNaive": 2.0, "Naive": 0.1})
    half = choose(registry)

    assert (nothing.outcome, nothing.champion) == ("none", None)
    assert half.model == "SeasonalNaive"
    notes = dict(zip(half.scores["model"], half.scores["note"], strict=True))
    assert notes == {"SeasonalNaive": "", "Naive": "not scored in each quarter"}


def test_outdated_choices__quarters_scored_in_any_order__end_as_in_the_order_of_time(
    registry: Registry,
) -> None:
    pipeline, engine = make_pipeline(), registry.engine

    def choose_and_again(quarter: Quarter) -> list[Quarter]:
        choose_of_quarter(engine, pipeline, quarter, passed=lambda *_: None)
        with transaction(engine) as session:
            outdated = outdated_choices(session, pipeline, [quarter])
        for later in outdated:
            choose_of_quarter(engine, pipeline, later, passed=lambda *_: None)
        return outdated

    # Nothing is scored yet, and of the quarter before alone another model is the best.
    choose_and_again(Q.shift(1))
    score(registry, Q, {"SeasonalNaive": 2.0, "Naive": 3.0})
    assert choose_and_again(Q) == [Q.shift(1)]
    assert standing_champion(engine, Q.shift(1)) == "SeasonalNaive"
    score(registry, Q.shift(-1), {"SeasonalNaive": 9.0, "Naive": 1.0})

    again = choose_and_again(Q.shift(-1))

    # Q was chosen when nothing before it was scored; nobody has chosen Q + 2.
    assert again == [Q, Q.shift(1)]
    assert {q: standing_champion(engine, q) for q in (Q, Q.shift(1))} == dict.fromkeys(
        (Q, Q.shift(1)), "Naive"
    )
    assert choose_and_again(Q.shift(-1)) == []


def standing_champion(engine: Engine, quarter: Quarter) -> str | None:
    """The model that is in production for a quarter."""
    query = text(
        "SELECT registered_model_name FROM model_registry "
        "WHERE current_stage = 'production' AND quarter_start = :day"
    )
    with engine.connect() as connection:
        name = connection.scalar(query, {"day": quarter.start.date()})
    return name and str(name).removeprefix("demo/")


@pytest.mark.parametrize(("margin", "outcome"), [(0.05, "refused"), (0.2, "promoted")])
def test_choose_champion__checks_failed__the_next_is_taken_within_the_margin(
    registry: Registry, margin: float, outcome: str
) -> None:
    past(registry, seasonal=1.1)
    champion_before = choose(registry, Q)
    retrained = registry.register(["Naive"], Q.shift(1))
    score(registry, Q, {"SeasonalNaive": 1.1, "Naive": 1.0})

    choice = choose(registry, Q.shift(1), margin=margin, passed_checks=["SeasonalNaive"])

    assert champion_before.model == "Naive"
    assert (choice.outcome, choice.model) == (outcome, "SeasonalNaive")
    assert (choice.champion is None) == (outcome == "refused")
    assert ("worse than Naive by more" in choice.reason) == (outcome == "refused")
    nobody = choose(registry, Q.shift(1), passed_checks=[])
    assert nobody.model is None and retrained


def test_choose_champion__approval__waits_for_a_person_and_hears_a_no(registry: Registry) -> None:
    past(registry)

    waiting = choose(registry, approval=True)
    again = choose(registry, approval=True)

    assert (waiting.outcome, waiting.champion) == ("waiting", None)
    assert again.outcome == "waiting"
    with transaction(registry.engine) as session:
        (candidate,) = [v for v in stages.list_registered(session) if stages.is_candidate(v)]
        assert candidate.registered_model_name == "demo/Naive"
        stages.reject(session, candidate, Decision("ann", "looks odd"))
    second = choose(registry, approval=True, margin=2.0)
    assert (second.outcome, second.model) == ("waiting", "SeasonalNaive")
    assert second.version is not None
    with transaction(registry.engine) as session:
        version = stages.find_version(session, "demo/SeasonalNaive", second.version)
        stages.approve(session, version, Decision("ann", "fine"))
    assert choose(registry, approval=True).outcome == "kept"


def test_choose_champion__person_promoted__stays_and_a_retrained_version_follows(
    registry: Registry,
) -> None:
    past(registry)
    with transaction(registry.engine) as session:
        stages.decide(session, "promote", "demo/SeasonalNaive", 4, Decision("ann", "holidays"))

    kept = choose(registry)
    registry.register(["SeasonalNaive"])
    followed = choose(registry)
    overruled = choose(registry, overrule=True)

    assert (kept.outcome, kept.champion) == ("kept", "demo/SeasonalNaive 4")
    assert (followed.outcome, followed.champion) == ("promoted", "demo/SeasonalNaive 6")
    assert (overruled.outcome, overruled.champion) == ("promoted", "demo/Naive 4")


def test_record_production_metrics__champions_own_quarter__is_noted_after_the_choice(
    registry: Registry,
) -> None:
    past(registry)
    choose(registry)
    score(registry, Q, {"SeasonalNaive": 1.5, "Naive": 7.0})

    with transaction(registry.engine) as session:
        record_production_metrics(session, registry.experiment_id, Q)

    with transaction(registry.engine) as session:
        assert stages.find_version(session, "demo/Naive", 4).production_metrics == {"mae": 7.0}


def test_choose_of_quarter__made_again__leaves_one_run_until_scores_or_models_change(
    registry: Registry,
) -> None:
    pipeline = make_pipeline()

    def due() -> str | None:
        with transaction(registry.engine) as session:
            models = {
                name: trained_model(session, registry.experiment_id, name, Q) for name in NAMES
            }
            return due_choice(session, pipeline, Q, models)

    def make() -> tuple[ChampionChoice, Run]:
        choice = choose_of_quarter(
            registry.engine, pipeline, Q, passed=lambda _session, _pipeline, _quarter: None
        )
        with transaction(registry.engine) as session:
            kind = Run.tags["kind"].astext == "choose"
            return choice, session.query(Run).where(kind, Run.deleted_at.is_(None)).one()

    past(registry)
    at_first = due()
    choice, run = make()
    settled = due()
    _, again = make()
    # What the quarter itself was like does not matter.
    score(registry, Q, {"SeasonalNaive": 0.0, "Naive": 9.0})
    still = due()
    past(registry, seasonal=0.5)
    restated = due()
    changed, other = make()
    # Restated, and taken back: the same state is due once more, under another mark.
    past(registry)
    back = due()
    make()
    registry.register(["Naive"])

    assert at_first is not None and settled is None and still is None
    assert again.run_id == run.run_id != other.run_id
    assert run.metadata_ is not None and run.metadata_["outcome"] == "promoted"
    assert run.metadata_["scores"] == {"Naive": 1.0, "SeasonalNaive": 2.0}
    assert run.metadata_["reason"] == choice.reason
    assert (choice.model, changed.model) == ("Naive", "SeasonalNaive")
    assert len({at_first, restated, back, due(), None}) == 5


@pytest.mark.parametrize(
    ("champion", "words"),
    [
        ({"metric": "mape"}, "allowed: mae, rmse"),
        ({"metric": "mqloss"}, "needs `levels`"),
        ({"margins": 0.1}, "champion.margins: unknown key"),
        ({"quarters": 0}, "champion.quarters"),
    ],
)
def test_champion_rule__wrong__is_refused(champion: dict[str, object], words: str) -> None:
    with pytest.raises(Exception, match=words):
        make_pipeline(**champion)
