"""``KIND:VALUE[@key=value]…``, separated by commas: the form of reclaim schedules and of lists of faults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from spotproof.durations import parse_duration
from spotproof.errors import SpecError

__all__ = ["Grammar", "Words"]

_UNIT_BYTES: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """One item, taken apart; the reading methods say what is wrong in the words of its grammar."""

    grammar: "Grammar"
    text: str
    """As the user wrote it."""
    kind: str
    value: str
    """What follows the colon; empty without one."""
    options: Mapping[str, str]

    def bad(self, why: str, do: str) -> SpecError:
        """Return the error that says why this item can't be used."""
        return self.grammar.bad(self.text, why, do)

    def duration(self) -> float:
        """Return the value as seconds."""
        try:
            return parse_duration(self.value)
        except ValueError:
            kind = self.kind
            raise self.bad(
                f"{self.value!r} is not a duration.",
                f"Write a number and a unit: {kind}:30s, {kind}:2m, {kind}:1.5s, {kind}:1h.",
            ) from None

    def share(self, text: str | None = None) -> float:
        """Return the value, or *text* in its place, as a share above 0 and up to 1."""
        text = self.value if text is None else text
        is_number = re.fullmatch(r"\d(\.\d{1,9})?", text, re.ASCII)
        if is_number is None or not 0 < float(text) <= 1:
            raise self.bad(
                f"{text!r} is not a share above 0 and up to 1.", f"Write {self.kind}:0.2 for one in five on average."
            )
        return float(text)

    def rate_bytes(self) -> float:
        """Return the value as bytes per second."""
        match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)(B|[KMG]i?B)/s", self.value, re.ASCII)
        if match is None or float(match[1]) == 0:
            raise self.bad(f"{self.value!r} is not bytes per second above 0.", f"Write {self.kind}:5MB/s.")
        return float(match[1]) * _UNIT_BYTES[match[2]]

    def no_value(self) -> None:
        """Check that there is none."""
        if self.value:
            raise self.bad(f"{self.kind} has no value.", f"Write {self.kind}.")

    def seed(self) -> int:
        """Return the option ``seed``; 0 unless given."""
        text = self.options.get("seed", "0")
        if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
            raise self.bad(f"seed {text!r} is not a whole number.", "Write @seed=7.")
        return int(text)

    def number(self, key: str, default: float, *, example: str) -> float:
        """Return option *key*, a plain number; *default* unless given."""
        text = self.options.get(key)
        if text is None:
            return default
        if not re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text, re.ASCII):
            raise self.bad(f"{key} {text!r} is not a number from 0 up.", f"Write @{key}={example}.")
        return float(text)

    def seconds(self, key: str, *, example: str) -> float | None:
        """Return option *key*: seconds, or a duration with its unit; None unless given."""
        text = self.options.get(key)
        if text is None:
            return None
        try:
            return parse_duration(text if text[-1:].isalpha() else f"{text}s")
        except ValueError:
            raise self.bad(f"{key} {text!r} is not a number of seconds.", f"Write @{key}={example}.") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grammar:
    """Which kinds of items there are, and how they are spoken of."""

    subject: str
    """What an item is, as an error begins: ``Reclaim schedule item``."""
    options: Mapping[str, tuple[str, ...]]
    """Of each kind."""
    examples: str
    no_value: frozenset[str] = frozenset()
    """Kinds that may stand without a colon."""
    path_values: frozenset[str] = frozenset()
    """Kinds whose value is a path, in which an ``@`` may be a part of a name."""

    def bad(self, item: str, why: str, do: str) -> SpecError:
        """Return the error that says why *item* can't be used."""
        return SpecError(f"{self.subject} {item!r} can't be used:", why=why, do=do)

    def parse(self, text: str) -> list[Words]:
        """Return the items of *text*; none for ``none``.

        Raises:
            SpecError: Names the bad item, why it is bad, and what would be right.
        """
        if text.strip() == "none":
            return []
        return [self.parse_item(part.strip()) for part in text.split(",")]

    def parse_item(self, text: str, *, shown: str | None = None) -> Words:
        """Return the one item in *text*; commas belong to its value. Errors quote *shown*, if the user wrote that.

        Raises:
            SpecError: As :meth:`parse`.
        """
        is_path = text.partition(":")[0] in self.path_values
        head, *options = re.split(r"@(?=[a-z]+=)" if is_path else "@", text)
        kind, colon, value = head.partition(":")
        shown = text if shown is None else shown
        if not text:
            raise self.bad(shown, "it is empty.", f"Write one of {self.examples}.")
        if kind == "none":
            raise self.bad(shown, "`none` stands alone.", "Use `none` by itself, or leave it out.")
        if kind not in self.options or not (colon or kind in self.no_value):
            kinds = ", ".join(self.options)
            raise self.bad(shown, f"it is not KIND:VALUE with KIND one of {kinds}.", f"Write one of {self.examples}.")
        given: dict[str, str] = {}
        for option in options:
            key, _, option_value = option.partition("=")
            known = self.options[kind]
            if key not in known:
                theirs = ", ".join(f"@{name}" for name in known)
                raise self.bad(
                    shown,
                    f"{kind} has no option {key!r}.",
                    f"Its options: {theirs}." if theirs else "It has none: leave it out.",
                )
            if key in given:
                raise self.bad(shown, "an option is given twice.", "Give each option once.")
            given[key] = option_value
        return Words(grammar=self, text=shown, kind=kind, value=value, options=given)
