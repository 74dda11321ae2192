"""Hyperparameters become the arguments that AWS's training toolkit would make of them."""

import pytest

from spotproof.container.arguments import (
    build_arguments,
    decode_hyperparameters,
    split_command_line,
    user_hyperparameters,
)


def to_arguments(raw: dict[str, str]) -> list[str]:
    return build_arguments(user_hyperparameters(decode_hyperparameters(raw)))


def test_the_toolkit_s_own_answer():
    """The recorded answer of the toolkit to one value of each kind."""
    raw = {"lr": "0.1", "name": '"abc"', "flag": "true", "l": "[1, 2]", "d": '{"a":1}', "n": "null", "k": "3"}

    expected = ["-d", "a=1", "--flag", "True", "-k", "3", "-l", "[1, 2]", "--lr", "0.1", "-n", "", "--name", "abc"]
    assert to_arguments(raw) == expected


@pytest.mark.parametrize(
    ("raw", "argument"),
    [
        ("DigitsDataModule", "DigitsDataModule"),
        ('"DigitsDataModule"', "DigitsDataModule"),
        ('"a \\"quoted\\" word"', 'a "quoted" word'),
        ("{broken", "{broken"),
        ("", ""),
        ("007", "007"),
        ("1e-3", "0.001"),
        ("False", "False"),
        ('["a", "b"]', "['a', 'b']"),
        ('{"b": 2, "a": null}', "a=None,b=2"),
    ],
)
def test_one_value(raw, argument):
    """A value is decoded if it is JSON and passed as it is if not."""
    assert to_arguments({"name": raw}) == ["--name", argument]


def test_dotted_names_come_after_what_they_refine():
    """``data`` comes before ``data.batch_size``: the class is chosen before its options are set."""
    names = to_arguments({"data.batch_size": "32", "optimizer.lr": "0.1", "optimizer": "Adam", "data": "X"})[::2]

    assert names == ["--data", "--data.batch_size", "--optimizer", "--optimizer.lr"]


def test_platform_keys_are_not_passed_on():
    """What the SDK and the tuner add for the platform does not reach the program."""
    raw = {"sagemaker_program": '"t.py"', "sagemaker_region": "x", "_tuning_objective_metric": "y", "lr": "1"}

    assert to_arguments(raw) == ["--lr", "1"]


@pytest.mark.parametrize(
    ("argv", "program", "fixed"),
    [
        (["train.py"], "train.py", []),
        (["train.py", "train"], "train.py", []),
        (["train.py", "fit", "--x=1", "train"], "train.py", ["fit", "--x=1"]),
        (["train.py", "train", "train"], "train.py", ["train"]),
        (["train"], None, []),
        ([], None, []),
    ],
)
def test_exactly_one_trailing_word_train_is_dropped(argv, program, fixed):
    """SageMaker's word behind the image is no argument of the program."""
    assert split_command_line(argv) == (program, fixed)
