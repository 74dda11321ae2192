"""The failure text has the toolkit's form and fits into a FailureReason."""

import pytest

from spotproof.container.failure import describe_failure, last_error, write_failure

TRACEBACK = """Epoch 0
Traceback (most recent call last):
  File "/opt/ml/code/train.py", line 3, in <module>
    main()
    ^^^^^^
  File "/opt/ml/code/train.py", line 2, in main
    raise ValueError("no\\nway")
ValueError: no
way
"""


def test_the_toolkit_s_form():
    """Exit code, message and command stand where the console's readers look for them."""
    text = describe_failure(7, TRACEBACK, ["/usr/bin/python", "train.py", "--lr", "0.1"])

    assert text == (
        'ExecuteUserScriptError:\nExitCode 7\nErrorMessage "ValueError: no\nway"\n'
        'Command "/usr/bin/python train.py --lr 0.1"'
    )


def test_the_last_exception_counts():
    """Of a chain of exceptions the last one ended the program."""
    chained = "Traceback (most recent call last):\n  a\nKeyError: 1\n\nDuring handling:\n\n" + TRACEBACK

    assert last_error(chained) == "ValueError: no\nway"


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("", ""),
        ("a\n\nb\n", "a\nb"),
        ("Traceback (most recent call last):\n  cut", "Traceback (most recent call last):\n  cut"),
    ],
)
def test_without_an_exception_line_the_last_lines_tell(stderr, message):
    """A program that is no Python, or was cut off, is quoted."""
    assert last_error(stderr) == message


def test_a_killed_program_says_so():
    """A SIGKILL from outside leaves nothing on stderr; the text says what usually sends it."""
    assert "memory" in describe_failure(137, "", ["x"])
    assert "SIGSEGV" in describe_failure(139, "", ["x"])


def test_it_fits_into_a_failure_reason():
    """A long message and a long command are cut so that both show."""
    text = describe_failure(1, "Traceback (most recent call last):\nE: " + "m" * 5000, ["python", "a" * 5000])

    assert len("AlgorithmError: " + text) == 1024
    assert text.endswith('…"')
    assert 'Command "python aaa' in text


def test_the_program_s_own_reason_stays(tmp_path):
    """What the program wrote itself is not overwritten."""
    write_failure(tmp_path, "ours")
    assert (tmp_path / "output/failure").read_text() == "ours"

    write_failure(tmp_path, "later")
    assert (tmp_path / "output/failure").read_text() == "ours"
