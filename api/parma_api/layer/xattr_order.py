"""The order of attributes in an attribute block.

The reference sorts with a comparison that is no proper order ("before" is true if prefix, or length, or name is
smaller), so the outcome depends on the sorting procedure: insertion sort up to 12 entries, from 13 on the
pattern-defeating quicksort below, step for step (layer format, section 8.6 and appendix A; Orson Peters,
"Pattern-defeating Quicksort").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parma_api.layer.xattr_name import Name

INSERTION = 12
_NINTHER = 50
_MASK64 = (1 << 64) - 1


def before(one: Name, other: Name) -> bool:
    """The reference's comparison; both `before(a, b)` and `before(b, a)` can hold."""
    return (
        one.prefix < other.prefix
        or len(one.suffix) < len(other.suffix)
        or one.suffix < other.suffix
    )


def block_order(names: Sequence[Name]) -> list[int]:
    """Positions of `names` in the order of the block; they are given in the order of placement."""
    order = list(range(len(names)))
    sorter = _Sorter(order, lambda x, y: before(names[order[x]], names[order[y]]))
    sorter.sort(0, len(order), len(order).bit_length())
    return order


class _Sorter:
    """Sorts `items` in place; all ranges exclude their end, and `less` compares what is at two positions now."""

    def __init__(self, items: list[int], less: Callable[[int, int], bool]) -> None:
        self._items = items
        self._less = less

    def sort(self, a: int, b: int, limit: int) -> None:
        """Sorts [a, b); after `limit` unbalanced partitions it falls back to heap sort."""
        balanced = partitioned = True
        while b - a > INSERTION:
            if limit == 0:
                self.heap(a, b)
                return
            if not balanced:
                self._scatter(a, b)
                limit -= 1
            pivot, exchanges = self._choose(a, b)
            rising = exchanges == 0
            if exchanges == _ALL_EXCHANGES:
                self._items[a:b] = self._items[a:b][::-1]
                pivot, rising = (b - 1) - (pivot - a), True
            if balanced and partitioned and rising and self._almost(a, b):
                return
            if a > 0 and not self._less(a - 1, pivot):
                a = self._equal(a, b, pivot)
                continue
            middle, partitioned = self._split(a, b, pivot)
            left, right, enough = middle - a, b - middle, (b - a) // 8
            if left < right:
                balanced = left >= enough
                self.sort(a, middle, limit)
                a = middle + 1
            else:
                balanced = right >= enough
                self.sort(middle + 1, b, limit)
                b = middle
        self._insertion(a, b)

    def heap(self, a: int, b: int) -> None:
        """Heap sort of [a, b)."""
        for root in range((b - a - 1) // 2, -1, -1):
            self._sift(a, root, b - a)
        for end in range(b - a - 1, -1, -1):
            self._swap(a, a + end)
            self._sift(a, 0, end)

    def _swap(self, x: int, y: int) -> None:
        self._items[x], self._items[y] = self._items[y], self._items[x]

    def _insertion(self, a: int, b: int) -> None:
        for i in range(a + 1, b):
            while i > a and self._less(i, i - 1):
                self._swap(i, i - 1)
                i -= 1

    def _sift(self, base: int, root: int, size: int) -> None:
        while (child := 2 * root + 1) < size:
            if child + 1 < size and self._less(base + child, base + child + 1):
                child += 1
            if not self._less(base + root, base + child):
                return
            self._swap(base + root, base + child)
            root = child

    def _choose(self, a: int, b: int) -> tuple[int, int]:
        """A pivot, and how many exchanges of positions it took to find it."""
        exchanges = 0

        def median(x: int, y: int, z: int) -> int:
            nonlocal exchanges
            for first in (True, False, True):
                if first and self._less(y, x):
                    x, y, exchanges = y, x, exchanges + 1
                elif not first and self._less(z, y):
                    y, z, exchanges = z, y, exchanges + 1
            return y

        size = b - a
        i, j, k = (a + part * (size // 4) for part in (1, 2, 3))
        if size >= _NINTHER:
            i, j, k = (median(x - 1, x, x + 1) for x in (i, j, k))
        return median(i, j, k), exchanges

    def _almost(self, a: int, b: int) -> bool:
        """Repairs up to five places of a range that is nearly sorted; true if it is sorted then."""
        i = a + 1
        for _ in range(5):
            while i < b and not self._less(i, i - 1):
                i += 1
            if i == b:
                return True
            if b - a < _NINTHER:
                return False
            self._swap(i, i - 1)
            if i - a >= 2:
                self._bubble(range(i - 1, 0, -1))
            if b - i >= 2:
                self._bubble(range(i + 1, b))
        return False

    def _bubble(self, places: range) -> None:
        for j in places:
            if not self._less(j, j - 1):
                return
            self._swap(j, j - 1)

    def _split(self, a: int, b: int, pivot: int) -> tuple[int, bool]:
        """Parts [a, b) by the pivot; its new place, and whether nothing had to move."""
        self._swap(a, pivot)
        i, j = self._scan(a, a + 1, b - 1)
        nothing_moved = i > j
        while i <= j:
            self._swap(i, j)
            i, j = self._scan(a, i + 1, j - 1)
        self._swap(j, a)
        return j, nothing_moved

    def _scan(self, pivot: int, i: int, j: int) -> tuple[int, int]:
        while i <= j and self._less(i, pivot):
            i += 1
        while i <= j and not self._less(j, pivot):
            j -= 1
        return i, j

    def _equal(self, a: int, b: int, pivot: int) -> int:
        """Gathers what equals the pivot at the front of [a, b); result: where the rest begins."""
        self._swap(a, pivot)
        i, j = a + 1, b - 1
        while True:
            while i <= j and not self._less(a, i):
                i += 1
            while i <= j and self._less(a, j):
                j -= 1
            if i > j:
                return i
            self._swap(i, j)
            i, j = i + 1, j - 1

    def _scatter(self, a: int, b: int) -> None:
        """Breaks patterns that unbalance the partitions: three swaps with a fixed pseudo-random sequence."""
        size = b - a
        mask = (1 << size.bit_length()) - 1
        state = size
        centre = a + 2 * (size // 4)
        for place in (centre - 1, centre, centre + 1):
            state ^= state << 13 & _MASK64
            state ^= state >> 7
            state ^= state << 17 & _MASK64
            other = state & mask
            self._swap(place, a + (other - size if other >= size else other))


_ALL_EXCHANGES = 12
"""Four medians of three exchanges each: the range falls."""
