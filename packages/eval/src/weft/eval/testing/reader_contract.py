"""The contract of readers as tests; third parties inherit it for their own."""

from __future__ import annotations

import pytest

from weft.eval.readers import readers
from weft.eval.testing import reader_checks as checks
from weft.eval.testing.subject import Subject


class ReaderContract:
    """What every reader keeps, on a model that it reads.

    Subclasses give the model from a fixture `subject`.
    """

    @pytest.fixture
    def subject(self) -> Subject:
        """The model, with what it and its processor make of some rows."""
        raise AssertionError("a contract test must say which model its reader reads")

    def test_the_reader_is_registered_by_its_name(self, subject: Subject) -> None:
        """It can be named in a recipe."""
        assert readers()[subject.reader.name] is type(subject.reader)

    def test_the_mean_loss_is_the_models_own(self, subject: Subject) -> None:
        """See `check_own_loss`."""
        checks.check_own_loss(subject)

    def test_the_answer_and_its_end_are_learned_and_nothing_else(self, subject: Subject) -> None:
        """See `check_learned`."""
        checks.check_learned(subject)

    def test_the_loss_of_a_row_does_not_depend_on_its_batch(self, subject: Subject) -> None:
        """See `check_alone`; a comparison has no loss of a row alone."""
        if subject.reader.objective == "generation":
            checks.check_alone(subject)

    def test_the_loss_does_not_depend_on_the_side_of_padding(self, subject: Subject) -> None:
        """See `check_padding`; nothing is padded where no text is read."""
        if subject.reader.objective == "classification":
            return
        if subject.reader.objective == "generation" or "embed" not in subject.reader.abilities:
            checks.check_padding(subject)

    def test_tensors_of_pictures_are_the_processors_bit_for_bit(self, subject: Subject) -> None:
        """See `check_pictures`."""
        checks.check_pictures(subject)

    def test_pictures_and_tasks_belong_to_their_rows(self, subject: Subject) -> None:
        """See `check_owners`."""
        checks.check_owners(subject)

    def test_a_batch_of_two_tasks_is_the_batches_of_each(self, subject: Subject) -> None:
        """See `check_mixed`; in a comparison every row sees the others."""
        if subject.reader.objective == "generation":
            checks.check_mixed(subject)

    def test_it_can_do_what_it_declares(self, subject: Subject) -> None:
        """See `ABILITY_CHECKS`."""
        for ability in sorted(subject.reader.abilities):
            checks.ABILITY_CHECKS[ability](subject)

    def test_it_refuses_what_it_does_not_declare(self, subject: Subject) -> None:
        """See `check_refusals`."""
        checks.check_refusals(subject)
