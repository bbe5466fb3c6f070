"""docs/twin.md shows each resource as it is written today."""

import pytest

from tests.samples.twin_examples import PAGE, examples, written_page
from tests.samples.twin_situations import KINDS

pytestmark = pytest.mark.record


def test_the_page_shows_each_resource_as_it_is_written() -> None:
    """`python -m tests.samples.twin_examples` brings the page up to date."""
    page = PAGE.read_text("utf-8")
    assert set(examples()) == KINDS
    assert page == written_page(page)


def test_examples_are_the_same_however_often_they_are_made() -> None:
    assert examples() == examples()
