"""The mutants themselves are run by `python -m tests.mutants`; here only that each of them still can be."""

import ast

import pytest

from .run import PACKAGE, ROOT, stale
from .table import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_nothing(mutant):
    assert stale(mutant) is None, "the text to be replaced must occur exactly once"
    ast.parse((PACKAGE / mutant.file).read_text().replace(mutant.old, mutant.new))
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text()


def test_two_mutants_have_one_name():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
