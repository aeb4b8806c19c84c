"""Sequences whose records are made when they are asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from weft.data.records.record import Record


class RecordsOnDemand(Sequence[Record]):
    """Records by position, each made on request; a slice is a list of them."""

    @abstractmethod
    def record(self, index: int) -> Record:
        """Return one record; a negative index counts from the end.

        Raises:
            IndexError: If there is none.
        """

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self.record(position) for position in range(*index.indices(len(self)))]
        return self.record(index)
