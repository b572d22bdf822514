"""What a script's header and body promise each other; `complaints` lists where they part."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from service.store import lua

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ_ONLY = "#!lua flags=no-writes\n"
CLOSING = ["Returns", "Errors", "Complexity", "Effects", "Why atomic"]
READS = {"GET", "HGET", "HMGET", "MGET", "TIME", "TYPE", "ZCARD", "ZCOUNT"} | {
    "ZMSCORE",
    "ZRANGE",
    "ZREVRANGE",
    "ZREVRANK",
    "ZSCORE",
}
WRITES = {"HDEL", "HINCRBY", "HSET", "SET", "UNLINK", "ZADD", "ZREM"}
MAX_LINES = 400

_LINE = re.compile(r"-- (\S.{0,11}\S)? +(\S.*)")
_NAMES = re.compile(r"local ([\w, ]+) = ([^\n]*(?:KEYS|ARGV)\[[^\n]*)\n")
_SLOT = re.compile(r"(KEYS|ARGV)\[(\d+)\]")


class Source(NamedTuple):
    """A script as it is written, cut where the header ends; and the text of its includes."""

    shebang: bool
    header: list[tuple[str, str]]
    names: str
    body: str
    includes: list[str]
    included: str

    @classmethod
    def of(cls, text: str, directory: Path = lua.DIRECTORY) -> Source:
        """Cut a script's text."""
        shebang = text.startswith(READ_ONLY)
        head, _, rest = text.removeprefix(READ_ONLY).partition("\n\n")
        header: list[tuple[str, str]] = []
        for line in head.splitlines():
            label, content = found.groups() if (found := _LINE.fullmatch(line)) else (line, "")
            if label:
                header.append((label, content))
            elif header:
                header[-1] = (header[-1][0], f"{header[-1][1]} {content}")
        includes = re.findall(r"^-- @include (\w+)$", rest, re.MULTILINE)
        included = "\n".join((directory / "include" / f"{name}.lua").read_text(encoding="utf-8") for name in includes)
        rest = re.sub(r"^-- @include \w+\n", "", rest, flags=re.MULTILINE).lstrip("\n")
        names, _, body = rest.partition("\n\n")
        return cls(shebang, header, names + "\n", _code(body), includes, _code(included))


def complaints(name: str, text: str) -> list[str]:
    """Return every way in which a script breaks the conventions, as a sentence each."""
    source = Source.of(text)
    return [
        *_outline(source),
        *_slots(source, "KEYS"),
        *_slots(source, "ARGV"),
        *_names(source),
        *_replies(source),
        *_commands(source),
        *_globals(source),
        *_wrapper(name),
        *([f"it has more than {MAX_LINES} lines"] if text.count("\n") > MAX_LINES else []),
    ]


def _code(text: str) -> str:
    return re.sub(r"--[^\n]*", "", text)


def _outline(source: Source) -> Iterator[str]:
    labels = [label for label, _ in source.header]
    keys = [f"KEYS[{number}]" for number in range(1, 1 + sum(label.startswith("KEYS[") for label in labels))]
    count = sum(label.startswith("ARGV[") for label in labels)
    arguments = [f"ARGV[{number}]" for number in range(1, count + 1)]
    open_ended = [*arguments[:-1], f"ARGV[{count}...]"]
    many_keys = [*keys[:-1], f"KEYS[{len(keys)}...]"]
    if labels not in (
        ["Summary", *first, *rest, *CLOSING] for first in (keys, many_keys) for rest in (arguments, open_ended)
    ):
        yield f"the header's parts are {labels}"
    for label, content in source.header:
        if not content:
            yield f"{label} says nothing"
        if label[:4] in ("KEYS", "ARGV") and not re.match(r"\w+(, [^:]+)?: ", content):
            yield f"{label} has no name"
        if label.startswith("KEYS") and not re.search(r"hash tag|any slot", content):
            yield f"{label} has no rule for its slot"
    summary = dict(source.header).get("Summary", "")
    if not re.fullmatch(r"[A-Z][^.]*\.", summary):
        yield "the summary is not one sentence"


def _slots(source: Source, table: str) -> Iterator[str]:
    """The slots that are read are those that the header names; a variadic tail is read by a running index."""
    labels = [label for label, _ in source.header if label.startswith(table)]
    variadic = bool(labels) and labels[-1].endswith("...]")
    documented = len(labels) - variadic
    code = source.names + source.body + source.included
    used = {int(number) for which, number in _SLOT.findall(code) if which == table}
    if used != set(range(1, documented + 1)):
        yield f"{table}: the header names {documented}, the body reads {sorted(used)}"
    if table in source.body and re.search(rf"{table}\[\d", source.body):
        yield f"{table}: a numbered slot is read outside the block of names"
    running = set(
        re.findall(rf"{table}\[[^]\d]|unpack\({table}|{table},", source.names + source.body + source.included)
    )
    if bool(running) != variadic:
        yield f"{table}: the tail is {'documented' if variadic else 'read'} but not {'read' if variadic else 'documented'}"
    start = f"(?:= {documented + 1}, #{table}|unpack\\({table}, {documented + 1}\\)|ready_since\\([^)]*, {documented + 1}\\))"
    if variadic and not re.search(start, source.body):
        yield f"{table}: the tail is not walked from its first slot on"


def _names(source: Source) -> Iterator[str]:
    """Each slot is read once, into a local that is called as the header calls it."""
    documented = {label: content.partition(":")[0] for label, content in source.header}
    read: list[str] = []
    for locals_, values in _NAMES.findall(source.names):
        slots = _SLOT.findall(values)
        for local, (table, number) in zip(locals_.split(", "), slots, strict=False):
            read.append(f"{table}[{number}]")
            called = documented.get(read[-1], "")
            wanted = f"{called}_key" if table == "KEYS" else called
            if local != wanted and not local.endswith(f"_{wanted}"):
                yield f"{read[-1]} is {wanted} in the header and {local} in the body"
    if len(read) != len(set(read)):
        yield "a slot is read twice"
    for line in source.names.splitlines():
        if not line.startswith("local ") or "redis." in line:
            yield f"the block of names does more than name: {line}"


def _replies(source: Source) -> Iterator[str]:
    header = dict(source.header)
    code = source.body + source.included
    errors = set(re.findall(r'error_reply\("([A-Z]+) ', code))
    if len(errors) < len(re.findall(r"error_reply\(", code)) and len(errors) == 0:
        yield "an error has no code"
    if errors != set(re.findall(r"\b[A-Z]{3,}\b", header.get("Errors", ""))):
        yield f"the error codes are {sorted(errors)}, the header says: {header.get('Errors', '')}"
    statuses = set(re.findall(r'return \{ "(\w+)"', source.body)) | set(
        re.findall(r'local answer = \{ "(\w+)"', source.body)
    )
    if "return { status }" in source.body:
        statuses |= {"notready", "source"} | ({"behind"} if "ready_since(" in source.body else set())
    if statuses != (told := set(re.findall(r'\{"(\w+)"', header.get("Returns", "")))):
        yield f"the statuses are {sorted(statuses)}, the header says {sorted(told)}"
    if re.search(
        r"return (?!\{|redis\.error_reply\(|answer\b)", re.sub(r"function.*?\nend\n", "", source.body, flags=re.DOTALL)
    ):
        yield "a reply is not a table that begins with a status"


def _commands(source: Source) -> Iterator[str]:
    code = source.body + source.included
    called = set(re.findall(r'redis\.call\(\s*"([A-Z]+)"', code))
    if len(re.findall(r"redis\.call", code)) != len(re.findall(r'redis\.call\(\s*"[A-Z]+",?', code)):
        yield "a command is not an upper-case literal"
    if unknown := called - READS - WRITES:
        yield f"commands that are neither known to read nor allowed to write: {sorted(unknown)}"
    if other := set(re.findall(r"redis\.(\w+)", code)) - {"call", "error_reply"}:
        yield f"redis offers more than is used here: {sorted(other)}"
    effects = dict(source.header).get("Effects", "")
    read_only = effects == "read-only"
    if read_only != (not called & WRITES):
        yield f"the effects are {effects!r}, the writes {sorted(called & WRITES)}"
    if read_only != source.shebang:
        yield f"the effects are {effects!r}, the no-writes flag is {'set' if source.shebang else 'not set'}"
    keys = [content.partition(":")[0] for label, content in source.header if label.startswith("KEYS")]
    written = re.findall(r"\w+", effects.partition("writes ")[2].partition(", with")[0])
    if not read_only and not set(written) <= set(keys):
        yield f"the effects name {written}, the keys are {keys}"


def _globals(source: Source) -> Iterator[str]:
    """What is assigned was declared local somewhere in the script; luacheck, where it is there, knows scopes."""
    code = source.names + source.included + source.body
    declared = {
        name
        for names in re.findall(
            r"\blocal (?:function )?([\w, ]+)|\bfor ([\w, ]+?) (?:=|in)\b|function \w*\(([^)]*)\)", code
        )
        for name in re.findall(r"\w+", " ".join(names))
    }
    assigned = {
        name
        for names in re.findall(r"^\s*((?:\w+(?:\[[^]]*\])?, )*\w+(?:\[[^]]*\])?) = ", code, re.MULTILINE)
        for name in re.findall(r"(?:^|, )(\w+)", names)
    } | set(re.findall(r"^\s*function (\w+)", code, re.MULTILINE))
    if leaked := assigned - declared:
        yield f"global names are assigned: {sorted(leaked)}"


def _wrapper(name: str) -> Iterator[str]:
    script = getattr(lua, name.upper(), None)
    if not isinstance(script, lua.Script) or script.name != name or script not in lua.ALL:
        yield f"service/store/lua.py has no {name.upper()} among ALL"
