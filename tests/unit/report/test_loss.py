"""Loss against step over attempts and jobs: where the values are from, what is lost, where the second run begins."""

from datetime import datetime
from typing import Any

import pytest
from test_summary import at, describe

from spotproof.report import Point, Reach, choose_metric, curve_of, metric_points, stepless_metrics
from spotproof.report.loss import Piece

JOB: dict[str, Any] = {
    **describe(
        ("Starting", 0), ("Training", 10), ("Interrupted", 20), ("Starting", 21), ("Training", 30), ("Completed", 50)
    ),
    "AlgorithmSpecification": {
        "MetricDefinitions": [
            {"Name": "train:loss", "Regex": r"loss=([0-9.e+-]+)"},
            {"Name": "broken", "Regex": "("},
            {"Name": "spotproof:step", "Regex": r"\[spotproof\] attempt=\d+ epoch=\d+ step=(\d+)"},
        ]
    },
}
LATER: dict[str, Any] = {
    **describe(("Starting", 100), ("Training", 110), ("Completed", 130)),
    "TrainingJobName": "later",
    "CreationTime": at(100),
}


def line(seconds: float, text: str) -> tuple[datetime, str]:
    return at(seconds), text


def test_values_from_the_log():
    """By the service's own definitions; the step is the line's, else the last one told; before any there is none."""
    lines = [
        line(11, "loss=9"),
        line(12, "[spotproof] attempt=0 epoch=0 step=4"),
        line(13, "epoch 0 loss=0.5 acc=1"),
        line(14, "step=7 loss=2e-1"),
        line(15, "global_step: 8, loss=0.1"),
        line(16, "loss=many"),
    ]
    found = metric_points(lines, JOB)
    assert found.keys() == {"train:loss"}
    points = found["train:loss"]
    assert [(point.step, point.value) for point in points] == [(4, 0.5), (7, 0.2), (8, 0.1)]
    assert stepless_metrics(lines, JOB) == {"train:loss"}
    assert stepless_metrics(lines[1:], JOB) == set()


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["val_loss", "train_loss_step", "train_loss"], "train_loss"),
        (["val_loss", "my_loss"], "my_loss"),
        (["validation:loss"], "validation:loss"),
        (["accuracy"], None),
        ([], None),
    ],
)
def test_the_training_loss_is_meant(names: list[str], chosen: str | None):
    """Unless there is another one only."""
    assert choose_metric(names) == chosen


def points(*pairs: tuple[int, float]) -> list[Point]:
    return [Point(step=step, value=1 / (step + 1), at=at(seconds)) for step, seconds in pairs]


def shape(pieces: tuple[Piece, ...]) -> list[tuple[str, int, bool, list[int]]]:
    return [(piece.job_name, piece.attempt, piece.is_lost, [point.step for point in piece.points]) for piece in pieces]


def test_the_second_run_begins_where_the_first_stopped():
    """Attempt 0 came to step 8 and attempt 1 went on from 5: 6 to 8 are lost, and hang on 5. The next job goes on from
    the end of the one before."""
    later = ((11, 111), (12, 112))  # one folder, and so in both
    found = curve_of(
        "loss",
        "hand",
        [
            (JOB, points((1, 11), (5, 15), (6, 16), (8, 18), (6, 31), (10, 40), *later)),
            (LATER, points(*later)),
        ],
        reaches={
            "job": [Reach(resumed_from_step=0, last_step=9), Reach(resumed_from_step=5, last_step=10)],
            "later": [Reach(resumed_from_step=10, last_step=12)],
        },
    )
    assert shape(found.pieces) == [
        ("job", 0, False, [1, 5]),
        ("job", 0, True, [5, 6, 8]),
        ("job", 1, False, [5, 6, 10]),
        ("later", 0, False, [10, 11, 12]),
    ]
    assert [(mark.kind, mark.step, mark.job_name, mark.attempt) for mark in found.marks] == [
        ("reclaimed", 9, "job", 0),
        ("resumed", 5, "job", 1),
        ("resumed", 10, "later", 0),
    ]


def test_points_that_their_source_calls_superseded_are_lost():
    """Also where nothing is known of the attempts' steps."""
    given = [*points((1, 11), (2, 12)), Point(step=3, value=0.1, at=at(13), is_lost=True), *points((3, 33))]
    found = curve_of("loss", "hand", [(JOB, given)], reaches={})
    assert shape(found.pieces) == [("job", 0, False, [1, 2]), ("job", 0, True, [2, 3]), ("job", 1, False, [2, 3])]
