"""The content of a report's document."""

from datetime import UTC, datetime

from slipway.artifacts import Comparison, Decay, FeatureScore, Holdout, SliceVerdict, Suspicion
from slipway.review.layout import Chart, Table, Text, lay_out
from slipway.review.report import ClientChanges, FeatureDrift, FieldChange, Override, Point, Report
from slipway.review.text_charts import interval_chart, loss_chart


def compared(rows: int, difference: float, interval: tuple[float, float] | None) -> Comparison:
    return Comparison(
        rows=rows,
        effective_rows=rows,
        days=None,
        groups=None,
        blocks=rows,
        difference=difference,
        interval=interval,
        confidence=0.95,
    )


def part(value: str, difference: float, rows: int = 100, *, regressed: bool = False) -> SliceVerdict:
    comparison = compared(rows, difference, (difference - 50, difference + 50))
    return SliceVerdict(
        column="wall", value=value, comparison=comparison, reference_loss=1000, judged=rows >= 40, regressed=regressed
    )


def judged_with(report: Report, **verdict: object) -> Report:
    assert report.result
    decided = report.result.verdict.model_copy(update=verdict)
    return report.model_copy(update={"result": report.result.model_copy(update={"verdict": decided})})


def tables(report: Report, title: str) -> list[Table]:
    section = next(each for each in lay_out(report).sections if each.title.startswith(title))
    return [block for block in section.blocks if isinstance(block, Table)]


def test_slices_show_the_worst_and_the_best_and_fold_the_others(report: Report) -> None:
    slices = (part("bad", -400, regressed=True), part("tiny", -900, rows=5), *(part(f"s{i}", i) for i in range(20)))
    shown, folded = tables(judged_with(report, slices=slices), "Slices")
    names = [row[0] for row in shown.rows]
    assert names[0] == "wall: bad"
    assert shown.rows[0][-1] == "REGRESSES"
    assert shown.marked == {0}
    assert names[-1] == "wall: s19"
    assert folded.folded == f"The other {22 - len(names)} slices"
    assert {row[0] for row in (*shown.rows, *folded.rows)} == {f"wall: {each.value}" for each in slices}
    assert next(row for row in folded.rows if row[0] == "wall: tiny")[-1] == "too few"


def test_the_tenths_of_two_classifiers_are_not_mixed(report: Report) -> None:
    assert report.result
    challenger = report.result.evaluation.challenger.model_copy(update={"metrics": {"log_loss": 0.5}})
    evaluation = report.result.evaluation.model_copy(update={"challenger": challenger})
    points = (
        Point(actual=0.4, champion=0.9, challenger=None),
        Point(actual=0.8, champion=0.6, challenger=None),
        Point(actual=0.5, champion=None, challenger=0.7),
    )
    result = report.result.model_copy(update={"points": points, "evaluation": evaluation})
    sections = lay_out(report.model_copy(update={"result": result})).sections
    charts = [block for section in sections for block in section.blocks if isinstance(block, Chart)]
    (table,) = [chart.without_image for chart in charts if chart.name == "predictions"]
    assert isinstance(table, Table)
    assert table.heads == ("champion's certainty", "correct", "challenger's certainty", "correct")
    assert table.rows == (("0.6", "0.8", "0.7", "0.5"), ("0.9", "0.4", "", ""))


def test_a_unit_that_is_a_word_follows_the_numbers_of_the_report(report: Report) -> None:
    holdout = Holdout(rows=1000, first=None, last=None)
    decayed = judged_with(report, decay=Decay(at_release=8.5, now=8.929, released_on=holdout))
    assert decayed.result
    result = decayed.result.model_copy(update={"unit": "bikes"})
    texts = [
        block.text
        for section in lay_out(decayed.model_copy(update={"result": result})).sections
        for block in section.blocks
        if isinstance(block, Text)
    ]
    assert any("error was 8.5 bikes when it was released" in each and "it is 8.929 bikes" in each for each in texts)


def test_a_slice_from_too_few_days_has_no_interval(report: Report) -> None:
    unsure = part("bad", -400).model_copy(update={"judged": False, "comparison": compared(100, -400, None)})
    row = tables(judged_with(report, slices=(unsure,)), "Slices")[-1].rows[0]
    assert row[-2:] == ("", "too few")


def test_a_broken_floor_is_marked(report: Report) -> None:
    assert report.result
    broken = report.result.verdict.floors[0].model_copy(update={"held": False})
    floors = tables(judged_with(report, floors=(broken,)), "Champion and challenger")[1]
    assert floors.rows[0][-1] == "BROKEN"
    assert floors.marked == {0}


def test_an_override_is_a_warning_with_name_and_time(report: Report) -> None:
    override = Override(by="maria", at=datetime(2026, 11, 24, 9, 30, tzinfo=UTC))
    warning = lay_out(report.model_copy(update={"override": override})).warnings[0]
    assert "maria" in warning
    assert "2026-11-24 09:30 UTC" in warning


def test_data_of_a_held_model_that_can_be_merged_is_a_warning(report: Report) -> None:
    held = judged_with(report, verdict="hold")
    (warning,) = lay_out(held.model_copy(update={"lands": True})).warnings
    assert "the data of this delivery can be merged (ingest.when_held: land)." in warning
    assert "The champion then stays, and nothing is released." in warning
    assert lay_out(held).warnings == ()
    untouched = report.changes.model_copy(update={"model": False})
    (warning,) = lay_out(held.model_copy(update={"changes": untouched})).warnings
    assert "touches nothing that the pipeline reads, so the model of main is held, too" in warning
    assert lay_out(report.model_copy(update={"changes": untouched})).warnings == ()  # the model is not held


def test_a_different_dvc_lock_is_a_warning(report: Report) -> None:
    revision = report.revision.model_copy(update={"lock": "not as committed"})
    assert "dvc.lock" in lay_out(report.model_copy(update={"revision": revision})).warnings[0]
    assert not lay_out(report).warnings


def test_the_title_of_folded_drift_has_the_largest_psi(report: Report) -> None:
    drift = (
        FeatureDrift(column="wall", psi=0.31, missing_before=0, missing_now=0.5),
        FeatureDrift(column="rooms", psi=0.01, missing_before=0, missing_now=0),
    )
    changes = report.changes.model_copy(update={"drift": drift})
    folded = [each for each in tables(report.model_copy(update={"changes": changes}), "What changed") if each.folded]
    assert folded[0].folded == "Drift of 2 columns; the largest PSI is 0.31"
    assert folded[0].rows[0] == ("wall", "0.310", "large", "0.0%", "50.0%")


def test_decay_since_the_release_is_described_in_a_sentence(report: Report) -> None:
    assert report.result
    aged = Decay(at_release=11_644.0, now=12_000.0, released_on=report.result.verdict.holdout)
    report = judged_with(report, decay=aged)
    section = lay_out(report).sections[0]
    texts = [block.text for block in section.blocks if isinstance(block, Text)]
    assert any("when it was released" in text and "$11,644" in text for text in texts)


def test_decay_on_a_new_delivery_is_described_in_a_sentence(report: Report) -> None:
    section = next(each for each in lay_out(report).sections if each.title == "What changed")
    texts = [block.text for block in section.blocks if isinstance(block, Text)]
    assert texts == ["The champion has decayed on 1997H2: answers are too low by $9."]


def test_the_text_chart_of_the_interval_includes_zero(report: Report) -> None:
    for difference, low, high in ((635, 202, 1087), (-400, -900, 100), (0, 0, 0)):
        comparison = compared(9, difference, (low, high))
        moved = judged_with(report, comparison=comparison)
        assert moved.result
        axis, zero, sentence = interval_chart(moved.result)
        assert zero.strip() == "0"
        if low < difference < high:
            assert axis.index("├") < axis.index("●") < axis.index("┤")
            assert (axis.index("●") > zero.index("0")) == (difference > 0)
        assert sentence.startswith("better by" if difference >= 0 else "worse by")


def test_the_text_chart_of_the_loss_has_a_line_for_each_model(report: Report) -> None:
    assert report.result
    _, title, days, champion, challenger = loss_chart(report.result)
    assert title.endswith('champion, then challenger"')
    assert days.strip() == 'x-axis ["05-01", "06-01", "07-01"]'
    assert (champion.strip(), challenger.strip()) == ("line [905, 906, 907]", "line [805, 806, 807]")


def scored(name: str, champion: float | None, challenger: float | None, missing: float = 0.0) -> FeatureScore:
    alone = None if challenger is None else 0.25
    return FeatureScore(
        name=name, champion=champion, challenger=challenger, alone=alone, missing_before=0.0, missing_now=missing
    )


def with_features(report: Report, *features: FeatureScore) -> Report:
    assert report.result
    evaluation = report.result.evaluation.model_copy(update={"features": features, "newest_delivery": "1997H2"})
    return report.model_copy(update={"result": report.result.model_copy(update={"evaluation": evaluation})})


def importance(report: Report) -> tuple[Table, list[Table]]:
    section = next(each for each in lay_out(report).sections if each.title == "Importance of features")
    (chart,) = [block for block in section.blocks if isinstance(block, Chart)]
    assert isinstance(chart.without_image, Table)
    return chart.without_image, [block for block in section.blocks if isinstance(block, Table)]


def test_importance_has_both_models_and_marks_what_is_suspected(report: Report) -> None:
    suspicions = (Suspicion(feature="tax", reason="tax alone removes 95%"),)
    found = with_features(
        judged_with(report, suspicions=suspicions),
        scored("tax", None, 300),
        scored("area", 200, 100),
        scored("age", 50, None),
    )
    table, others = importance(found)
    assert table.heads == ("feature", "champion", "challenger", "share", "alone")
    assert table.rows == (
        ("tax", "", "300", "75.0%", "25.0%"),
        ("area", "200", "100", "25.0%", "25.0%"),
        ("age", "50", "", "", ""),
    )
    assert (table.marked, others) == ({0}, [])
    assert "Too good to be true: tax alone removes 95%." in lay_out(found).warnings
    given = judged_with(found, reason="too good to be true: tax alone removes 95%")
    assert not [warning for warning in lay_out(given).warnings if "Too good" in warning]


def test_importance_folds_the_least_important_and_shows_missing_shares(report: Report) -> None:
    names = [f"x{number}" for number in range(20)]
    table, (others,) = importance(with_features(report, *(scored(name, 1, 1, missing=0.5) for name in names)))
    assert table.heads[-2:] == ("missing before", "missing in 1997H2")
    assert table.rows[0][-2:] == ("0.0%", "50.0%")
    assert others.folded == "The other 8 features"
    assert [row[0] for row in (*table.rows, *others.rows)] == names


def test_changes_for_clients_are_a_table_and_a_warning_if_requests_are_refused(report: Report) -> None:
    assert report.result
    assert not [each for each in lay_out(report).sections if each.title == "Changes for clients"]
    fields = (
        FieldChange(field="wall", change="also 'log'", old_requests="accepted"),
        FieldChange(field="tax", change="added, required", old_requests="refused"),
    )
    clients = ClientChanges(fields=fields, records=8, refused=8, reason="#/0/tax: Field required.")
    result = report.result.model_copy(update={"clients": clients})
    changed = report.model_copy(update={"result": result})
    (table,) = tables(changed, "Changes for clients")
    assert (table.rows, table.marked) == (
        (("wall", "also 'log'", "accepted"), ("tax", "added, required", "refused")),
        {1},
    )
    section = next(each for each in lay_out(changed).sections if each.title == "Changes for clients")
    assert section.blocks[1] == Text(
        "The challenger accepts 0 of the 8 records in the champion's golden.json: #/0/tax: Field required."
    )
    assert lay_out(changed).warnings == ("The challenger refuses requests that the champion accepts, because of tax.",)
    harmless = clients.model_copy(update={"fields": fields[:1], "refused": 0, "reason": None})
    assert lay_out(report.model_copy(update={"result": result.model_copy(update={"clients": harmless})})).warnings == ()
