"""Every mutation still applies, and names tests that there are; run as a whole, each is caught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import MUTATIONS
from .__main__ import main
from .mutation import Gone, Mutation
from .runner import ROOT, open_runner

HARMLESS = Mutation(
    "harmless", "service/order.py", '"""\nThe tie rule', '"""\nThis tie rule', ("tests/unit/test_order.py",)
)


@pytest.mark.slow  # on demand, like the mutations themselves: it compares source text
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_applies(mutation: Mutation, tmp_path: Path) -> None:
    """To the product as it is: its text is there once, and another one afterwards."""
    copy = tmp_path / mutation.file
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / mutation.file).read_text(encoding="utf-8"), encoding="utf-8")
    before = mutation.apply(tmp_path)

    assert before != copy.read_text(encoding="utf-8")
    assert mutation.tests
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8") or not name


def test_names_are_different() -> None:
    assert len(MUTATIONS) == len({mutation.name for mutation in MUTATIONS})


@pytest.mark.parametrize("text", ["", "twice twice"])
def test_what_does_not_stand_there_once_is_gone(tmp_path: Path, text: str) -> None:
    """Nothing is written then."""
    (tmp_path / "file").write_text(text)
    with pytest.raises(Gone):
        Mutation("any", "file", "twice", "once", ()).apply(tmp_path)

    assert text == (tmp_path / "file").read_text()


def test_the_list_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """As text, and as an object a line."""
    assert 0 == main(["--list", "--only", MUTATIONS[0].name])
    assert MUTATIONS[0].tests[0] in capsys.readouterr().out
    assert 0 == main(["--list", "--json"])
    told = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert [mutation.name for mutation in MUTATIONS] == told


def test_a_mutation_of_no_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "nothing of the kind"])
    assert "nothing of the kind" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_mutation_is_caught() -> None:
    """And one that breaks nothing survives: the runner can tell."""
    with open_runner() as runner:
        runner.check(MUTATIONS)
        outcomes = {mutation.name: runner.verdict(mutation).outcome for mutation in (*MUTATIONS, HARMLESS)}

    assert {HARMLESS.name: "survived"} == {name: outcome for name, outcome in outcomes.items() if outcome != "caught"}
