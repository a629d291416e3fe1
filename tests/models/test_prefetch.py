import threading

import pytest

from deita_tasks.models.prefetch import prefetch


@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_piece_in_order(size):
    pieces = list(prefetch(range(7), lambda piece: [2 * item for item in piece], size))
    assert [item for piece in pieces for item in piece] == [0, 2, 4, 6, 8, 10, 12]
    assert all(len(piece) <= size for piece in pieces)


def test_no_items_are_one_empty_piece():
    assert list(prefetch([], list)) == [[]]


def test_the_next_piece_is_prepared_while_the_last_is_used():
    begun = [threading.Event() for _ in range(3)]

    def prepare(piece):
        begun[piece[0]].set()
        return list(piece)

    for number, _ in enumerate(prefetch(range(3), prepare, 1)):
        assert begun[min(number + 1, 2)].wait(5)  # without being asked for
        assert number > 0 or not begun[2].is_set()  # and no more than one


def test_an_error_comes_where_its_piece_is_asked_for():
    def prepare(piece):
        return [1 // item for item in piece]

    pieces = prefetch([1, 0], prepare, 1)
    assert next(pieces) == [1]
    with pytest.raises(ZeroDivisionError):
        next(pieces)
