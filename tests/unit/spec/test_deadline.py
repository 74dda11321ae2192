"""A deadline is one instant, wherever it is read."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import yaml

from spotproof.errors import SpecError
from spotproof.spec import Deadline, parse_job_spec
from spotproof.spec.deadline import parse_deadline

SUBMITTED_AT = datetime(2027, 1, 1, tzinfo=timezone.utc)
FIELDS: dict[str, Any] = {
    "name": "a",
    "image_uri": "image",
    "role": "arn:aws:iam::123456789012:role/R",
    "output_path": "s3://bucket/out",
}


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("36h", SUBMITTED_AT + timedelta(hours=36)),
        ("1.5d", SUBMITTED_AT + timedelta(hours=36)),
        ("2027-01-31T18:00:00+01:00", datetime(2027, 1, 31, 17, tzinfo=timezone.utc)),
        ("2027-01-31T17:00:00Z", datetime(2027, 1, 31, 17, tzinfo=timezone.utc)),
        ("'2027-01-31 17:00:00Z'", datetime(2027, 1, 31, 17, tzinfo=timezone.utc)),
    ],
)
def test_deadline_is_an_instant(text: str, instant: datetime) -> None:
    """A duration counts from the submission, a time stands for itself, whether YAML reads it as one or as a text."""
    assert parse_deadline(yaml.safe_load(text)).instant(SUBMITTED_AT) == instant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-31T18:00:00", "no time zone"),
        ("'2027-01-31'", "no time zone"),
        ("2027-01-31", "no time zone"),
        ("tomorrow", "36h"),
        ("36", "36h"),
        ("0h", "no time"),
        ("400d", "366 days"),
        ("true", "36h"),
        ("[36h]", "36h"),
    ],
)
def test_what_is_no_instant_is_refused(text: str, expected: str) -> None:
    """Without a zone it would be another instant elsewhere; without a unit nobody knows what is meant."""
    with pytest.raises(SpecError, match=expected):
        parse_deadline(yaml.safe_load(text))


def test_types_in_the_order_of_preference() -> None:
    """The first type is what is asked for first; one type alone is a list of one."""
    one = parse_job_spec({**FIELDS, "instance_type": "ml.m5.large", "deadline": "36h", "max_cost_usd": 4.5})
    several = parse_job_spec({**FIELDS, "instance_types": ["ml.g5.xlarge", "ml.g4dn.xlarge"]})

    assert (one.instance_type, one.instance_types) == ("ml.m5.large", ("ml.m5.large",))
    assert (one.deadline, one.max_cost_usd) == (Deadline(after_seconds=36 * 3600), 4.5)
    assert (several.instance_type, several.instance_types) == ("ml.g5.xlarge", ("ml.g5.xlarge", "ml.g4dn.xlarge"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"instance_type": "ml.m5.large", "instance_types": ["ml.g5.xlarge"]}, "Keep one of both"),
        ({"instance_types": []}, "instance_type: it is missing"),
        ({"instance_types": ["ml.g5.xlarge", "g5.2xlarge"]}, "ml.g5.2xlarge"),
        ({"instance_types": ["ml.g5.xlarge", "ml.g5.xlarge"]}, "twice"),
        ({"instance_type": "ml.m5.large", "max_cost_usd": 0}, "no limit"),
        ({"instance_type": "ml.m5.large", "max_cost_usd": float("nan")}, "no limit"),
    ],
)
def test_limits_that_are_none(fields: dict[str, Any], expected: str) -> None:
    """Two answers to one question, and limits that limit nothing, are refused."""
    with pytest.raises(SpecError, match=expected):
        parse_job_spec({**FIELDS, **fields})
