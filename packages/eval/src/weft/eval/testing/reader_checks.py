"""What every reader holds, each as a function of a subject; `ReaderContract` makes tests of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from weft.core import attach
from weft.core.backbone.resolving import resolve
from weft.eval.readers import Ability, Batch, Reader, ReaderError, Row, Turn, Writing
from weft.eval.readers.classes import Classes
from weft.eval.readers.one_sequence import OneSequence
from weft.eval.testing.subject import Subject

OWN_LOSS, OTHER_ROWS, MIXED = 2e-6, 5e-7, 1e-6
IGNORED = -100
WRITINGS = (Writing(max_new_tokens=4), Writing(max_new_tokens=4, num_beams=3))
_TEXT = ("input_ids", "attention_mask", "token_type_ids")


def check_own_loss(subject: Subject) -> None:
    """The mean loss is the model's own on the processor's own tensors."""
    if subject.own_loss is None:
        return
    reader = subject.reader
    with torch.no_grad():
        found = reader.losses(subject.model, reader.training(subject.rows)).mean
        expected = subject.own_loss(subject.rows)
    torch.testing.assert_close(found, expected, rtol=0, atol=OWN_LOSS)


def check_learned(subject: Subject) -> None:
    """What is learned is the answer and its end, nothing else."""
    batch = subject.reader.training(subject.rows)
    if batch.labels is None:
        return
    tokenizer = subject.processor.tokenizer
    for row, labels in zip(subject.rows, batch.labels, strict=True):
        learned = labels[labels != IGNORED]
        said = tokenizer.decode(learned, skip_special_tokens=True).strip()
        assert said == row.answer, f"{row.name} learns {said!r}"
        special = [token for token in learned.tolist() if token in tokenizer.all_special_ids]
        assert tokenizer.eos_token_id in special or tokenizer.sep_token_id in special, (
            f"{row.name} does not end"
        )


def check_alone(subject: Subject) -> None:
    """A row's loss does not depend on the rows beside it."""
    _alone(partial(_rows, subject.reader, subject.wide()), subject.rows)


def check_adapted(subject: Subject) -> None:
    """An adapted model learns from the rows."""
    assert subject.method is not None, "only models that can be adapted are asked"
    model = attach(copy.deepcopy(subject.model), subject.method, sorted({row.task for row in subject.rows}))
    batch = subject.reader.training(subject.rows)
    with model.route(tasks=batch.tasks):
        subject.reader.losses(model, batch).rows.sum().backward()
    found = [value.grad for value in model.parameters() if value.requires_grad and value.grad is not None]
    assert any(bool(gradient.any()) for gradient in found), "nothing is learned"


def check_padding(subject: Subject) -> None:
    """A row's loss depends neither on the side of padding, nor on the side that the tokenizer is set to."""
    reader, model, tokenizer = subject.reader, subject.wide(), subject.processor.tokenizer
    kept, found = tokenizer.padding_side, []
    try:
        for side in ("left", "right"):
            tokenizer.padding_side = side
            if isinstance(reader, OneSequence):
                reader.padding = side
            found.append(_rows(reader, model, subject.rows))
    finally:
        tokenizer.padding_side = kept
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=OTHER_ROWS)


def check_pictures(subject: Subject) -> None:
    """The tensors of pictures are the processor's, bit for bit."""
    made, own = subject.reader.training(subject.rows).inputs, subject.own_inputs(subject.rows)
    names = [name for name in own if name.startswith(("pixel", "image", "spatial"))]
    assert names
    for name in names:
        assert torch.equal(made[name], own[name]), f"{name} differs"


def check_owners(subject: Subject) -> None:
    """Every picture belongs to the row that shows it."""
    batch = subject.reader.training(subject.rows)
    rows = [place for place, row in enumerate(subject.rows) for _ in row.pictures]
    assert batch.owners["images"].tolist() == rows
    assert batch.tasks == [row.task for row in subject.rows]


def check_mixed(subject: Subject) -> None:
    """A batch of two tasks is the batches of each: losses, gradients, and answers where it writes."""
    if subject.method is None:
        return
    reader, model = subject.reader, _adapted(subject)
    together, gradients = _learned(reader, model, subject.rows)
    parts = [_learned(reader, model, rows) for rows in _by_task(subject.rows)]
    order = [row.name for rows in _by_task(subject.rows) for row in rows]
    apart = dict(zip(order, torch.cat([losses for losses, _ in parts]), strict=True))
    expected = torch.stack([apart[row.name] for row in subject.rows])
    torch.testing.assert_close(together, expected, rtol=0, atol=MIXED)
    for name, gradient in gradients.items():
        summed = sum((own[name] for _, own in parts if name in own), torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, summed, rtol=0, atol=MIXED, msg=name)
    if "write" in reader.abilities:
        written = [_said(reader, model, rows) for rows in _by_task(subject.rows)]
        assert _said(reader, model, subject.rows) == {
            name: text for own in written for name, text in own.items()
        }


def _adapted(subject: Subject) -> Any:
    """A copy of the model whose tasks differ."""
    model = subject.wide()
    attach(model, dict(subject.method or {}), sorted({row.task for row in subject.rows}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for _, _, slot in model.weft.slots():
            slot.data.add_(0.3 * torch.randn_like(slot))
    return model


def _by_task(rows: Sequence[Row]) -> list[list[Row]]:
    return [[row for row in rows if row.task == task] for task in sorted({row.task for row in rows})]


def _said(reader: Reader, model: Any, rows: Sequence[Row]) -> dict[str, str]:
    batch = _wide(reader.asking(rows))
    with model.route(tasks=batch.tasks):
        texts = reader.write(model, batch, Writing(max_new_tokens=3, num_beams=2))
    return dict(zip(batch.names, texts, strict=True))


def check_write(subject: Subject) -> None:
    """Answers of a batch are those of each row alone, and the model's own, token for token; greedily and by beams."""
    reader, model = subject.reader, subject.model
    for writing in WRITINGS:
        together = reader.generate(model, reader.asking(subject.rows), writing)
        for row, tokens in zip(subject.rows, together, strict=True):
            alone = reader.generate(model, reader.asking([row]), writing)[0]
            own = subject.own_inputs([row])
            expected = model.generate(**own, **writing.options)[0]
            cut = expected[-len(alone) :]
            assert torch.equal(alone, cut), f"{row.name}: {alone.tolist()} is not {cut.tolist()}"
            ended = [subject.processor.tokenizer.pad_token_id]
            assert torch.equal(tokens[: len(alone)], alone), f"{row.name} differs beside others"
            assert all(token in ended for token in tokens[len(alone) :].tolist())
    texts = reader.write(model, reader.asking(subject.rows), WRITINGS[0])
    assert len(texts) == len(subject.rows)


def check_score(subject: Subject) -> None:
    """The log-likelihood of a candidate is minus the loss of a row with that answer, and the likeliest is chosen."""
    reader, model = subject.reader, subject.wide()
    candidates = [["red", "a large purple hexagon", str(row.answer)] for row in subject.rows]
    rows = [replace(row, answer=None) for row in subject.rows]
    with torch.no_grad():
        found = reader.score(model, rows, candidates, batch_size=3)
        for row, own, scores in zip(rows, candidates, found, strict=True):
            for answer, score in zip(own, scores, strict=True):
                learned = _wide(reader.training([replace(row, answer=answer)]))
                loss = float(reader.losses(model, learned).sums[0])
                assert abs(score + loss) <= OTHER_ROWS * max(1.0, abs(score)), f"{row.name}: {answer}"
        chosen = reader.choose(model, rows, candidates, batch_size=3)
    assert chosen == [own[scores.index(max(scores))] for own, scores in zip(candidates, found, strict=True)]


def check_embed(subject: Subject) -> None:
    """Features of both sides have length one, and do not depend on what stands beside them."""
    reader, model = subject.reader, subject.wide()
    with torch.no_grad():
        texts = _alone(lambda rows: reader.embed_texts(model, _wide(reader.asking(rows))), subject.rows)
        pictures = _alone(lambda rows: reader.embed_pictures(model, _wide(reader.asking(rows))), subject.rows)
    for found in (texts, pictures):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)).to(found))


def check_classify(subject: Subject) -> None:
    """The likelier class has the higher score, and a row's loss among the classes of its task is its own."""
    reader, model = subject.reader, subject.wide()
    rows = [
        row if row.classes is not None else replace(row, classes=_classes(subject, row.task))
        for row in subject.rows
    ]
    _alone(partial(_rows, reader, model), rows)
    for row in rows:
        classes = row.classes
        assert classes is not None, "given above"
        picture = replace(row, turns=(Turn("user", row.pictures),), answer=None)
        losses = torch.cat([_rows(reader, model, [replace(row, answer=name)]) for name in classes.names])
        with torch.no_grad():
            features = reader.class_features(model, row.task, classes)
            scores = reader.classify(model, _wide(reader.asking([picture])), features)[0]
        assert scores.shape == losses.shape
        assert torch.equal(scores.argsort(descending=True), losses.argsort()), row.name


def _classes(subject: Subject, task: str) -> Classes:
    names = [str(row.answer) for row in subject.rows if row.task == task]
    return Classes.written([*dict.fromkeys(names), "a green star"], ["what is a {}?", "{}"])


def check_match(subject: Subject) -> None:
    """Whether a text belongs to its picture depends neither on the pairs beside it nor on being asked of many texts."""
    reader, model = subject.reader, subject.wide()
    with torch.no_grad():
        alone = _alone(lambda rows: reader.match(model, _wide(reader.asking(rows))), subject.rows)
        pictures = [replace(row, turns=(Turn("user", row.pictures),)) for row in subject.rows]
        texts = [replace(row, turns=(Turn("user", (row.text,)),)) for row in subject.rows]
        read = _wide(reader.asking(texts))
        seen = [reader.look(model, _wide(reader.asking([row]))) for row in pictures]
        apart = torch.stack([reader.belong(model, one, read)[place] for place, one in enumerate(seen)])
    torch.testing.assert_close(apart, alone, rtol=0, atol=OTHER_ROWS)


def check_features(subject: Subject) -> None:
    """Stored features take the place of pictures: the losses are those of the pictures, and no tower is run."""
    reader, model = subject.reader, subject.wide()
    batch = _wide(reader.training(subject.rows))
    with torch.no_grad():
        read = reader.with_features(model, batch)
        assert not [name for name in read.inputs if name.startswith("pixel")]
        expected = reader.losses(model, batch).rows
        for path in resolve(model).towers["vision"]:
            model.get_submodule(path).register_forward_pre_hook(lambda *given: _fail("the vision tower ran"))
        torch.testing.assert_close(reader.losses(model, read).rows, expected, rtol=0, atol=OTHER_ROWS)


def _fail(what: str) -> None:
    raise AssertionError(what)


def check_refusals(subject: Subject) -> None:
    """What the reader does not declare, it refuses; and what it declares is among the known words."""
    reader = subject.reader
    attempts: dict[Ability, Callable[[Batch], Any]] = {
        "write": lambda batch: reader.generate(subject.model, batch, WRITINGS[0]),
        "score": lambda batch: reader.score(subject.model, subject.rows[:1], [["red"]]),
        "embed": lambda batch: reader.embed_texts(subject.model, batch),
        "match": lambda batch: reader.match(subject.model, batch),
        "classify": lambda batch: reader.classify(subject.model, batch, None),
        "features": lambda batch: reader.with_features(subject.model, batch),
    }
    assert reader.abilities <= set(attempts)
    batch = reader.asking(subject.rows)
    for ability, attempt in attempts.items():
        if ability not in reader.abilities:
            try:
                attempt(batch)
            except ReaderError as error:
                assert f"`{ability}` must be among what" in str(error), error  # noqa: PT017
            else:
                raise AssertionError(f"{ability} is not declared, but not refused either")


ABILITY_CHECKS: dict[Ability, Callable[[Subject], None]] = {
    "write": check_write,
    "score": check_score,
    "embed": check_embed,
    "match": check_match,
    "classify": check_classify,
    "features": check_features,
}
"""What proves that a model can do what its reader declares."""


def _wide(batch: Batch) -> Batch:
    return batch.to("cpu", dtype=torch.float64)


def _alone(found: Callable[[Sequence[Row]], Tensor], rows: Sequence[Row]) -> Tensor:
    """What is found of each row alone, which is what is found of it beside the others."""
    alone = torch.cat([found([row]) for row in rows])
    torch.testing.assert_close(found(rows), alone, rtol=0, atol=OTHER_ROWS)
    return alone


def _rows(reader: Reader, model: Any, rows: Sequence[Row]) -> Tensor:
    with torch.no_grad():
        return reader.losses(model, _wide(reader.training(rows))).rows


def _learned(reader: Reader, model: Any, rows: Sequence[Row]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    batch = _wide(reader.training(rows))
    with model.route(tasks=batch.tasks):
        losses = reader.losses(model, batch).rows
        losses.sum().backward()
    gradients = {
        name: copy.deepcopy(value.grad)
        for name, value in model.named_parameters()
        if value.requires_grad and value.grad is not None
    }
    return losses.detach(), gradients
