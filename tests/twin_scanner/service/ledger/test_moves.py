"""The table of moves: every pair of states of every kind of row, on both sides of the line."""

from enum import StrEnum
from itertools import product

import pytest

from twin_scanner.errors import Defect
from twin_scanner.service.ledger.moves import MOVES, DeliveryState, State, check_move

pytestmark = pytest.mark.unit

PAIRS = [pair for states in MOVES for pair in product(states, states)]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_only_the_moves_of_the_table_are_made(before: StrEnum, after: StrEnum) -> None:
    if after.value in MOVES[type(before)][before.value]:
        check_move("Row 1", before, after)
    else:
        with pytest.raises(Defect, match=f"Row 1 cannot go from {before} to {after}"):
            check_move("Row 1", before, after)


def test_every_state_is_in_the_table_and_leads_to_states_of_its_kind() -> None:
    for states, moves in MOVES.items():
        assert set(moves) == {state.value for state in states}
        for targets in moves.values():
            assert targets <= set(moves)


def test_out_of_done_and_confirmed_leads_only_the_wish_to_send_again() -> None:
    assert MOVES[State][State.DONE] == {State.RENDERED}
    assert MOVES[DeliveryState][DeliveryState.CONFIRMED] == {DeliveryState.WAITING}
    assert not MOVES[State][State.SUPERSEDED]
