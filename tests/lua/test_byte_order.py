"""
No script asks the server's locale: `<` on two strings would, and the same board would have two orders.

Read from the text, because no server of this run need have a locale whose order is not that of the bytes.
"""

from __future__ import annotations

import re

import pytest

from service.store.lua import DIRECTORY

TEXTS = {
    str(path.relative_to(DIRECTORY)): path.read_text(encoding="utf-8") for path in sorted(DIRECTORY.rglob("*.lua"))
}
OPERAND = r"#?[\w.\[\]]+(?:\([^()]*\))?"
COMPARED = re.compile(rf"({OPERAND}|\S+)\s*(?:<=|>=|<|>)\s*({OPERAND}|\S+)")
PLAIN = re.compile(r"\d+|#[\w.\[\]]+|\(*tonumber\(.*\)")
NUMBER = re.compile(
    r"-?\d|\(?#|\(?tonumber\(|whole\(|math\.|string\.byte\(|above\(|ready(?:_since)?\("
    r'|redis\.call\("Z(?:CARD|COUNT|REM)"|(?:low|last|grown|removed|given) [-+] |middle(?: \+|$)|first$'
    r"|.*\band (?:string\.find|tonumber)\("
)
PARAMETERS = {
    "include/rows.lua": {"floor"},
    "include/ready_since.lua": {"version"},
    "include/whole.lua": {"low", "high"},
}
"""Names that are compared and come from a caller, who is known to pass a number."""


def strings_compared(name: str, text: str) -> list[str]:
    """Return every operand of an order that is not plainly a number."""
    code = re.sub(r"--.*", "", text)
    operands = {operand for pair in COMPARED.findall(code) for operand in pair} - PARAMETERS.get(name, set())
    return sorted(operand for operand in operands if not PLAIN.fullmatch(operand) and not _is_number(code, operand))


def _is_number(code: str, name: str) -> bool:
    values = _values(code, name)
    return bool(values) and all(map(NUMBER.match, values))


def _values(code: str, name: str) -> list[str]:
    """What is assigned to a name anywhere in the text."""
    values = []
    for names, right in re.findall(r"^ *(?:local )?(\w+(?:, \w+)*) = (.+?)(?: do)?$", code, re.MULTILINE):
        named, parts = names.split(", "), _parts(right)
        if name in named:
            values.append(parts[named.index(name)] if len(parts) == len(named) else right)
    return values


def _parts(expressions: str) -> list[str]:
    parts, depth = [""], 0
    for letter in expressions:
        depth += (letter in "({[") - (letter in ")}]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


@pytest.mark.parametrize("name", TEXTS)
def test_only_numbers_are_compared_by_order(name: str) -> None:
    """Whoever compares strings does it byte by byte; `table.sort` would compare them too."""
    assert [] == strings_compared(name, TEXTS[name])
    assert "table.sort" not in TEXTS[name]


@pytest.mark.parametrize(
    "line",
    [
        "if held < encoded then",
        'local held = redis.call("HGET", users_key, id)\nreturn held >= 3',
        'if redis.call("ZREVRANGE", board_key, 0, 0)[1] > 3 then',
        "local mine, theirs = string.sub(member, 1, 1), string.byte(point, 1)\nreturn mine > theirs",
        "return 3 < ARGV[2]",
    ],
)
def test_the_check_can_fail(line: str) -> None:
    assert strings_compared("some.lua", line)
