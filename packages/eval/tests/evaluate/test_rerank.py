"""Two-stage retrieval and answers from a list, against scores by hand and against every candidate in full."""

import numpy as np
import pytest
import torch

from weft.core import attach
from weft.core.composites import BlipAnswering, BlipAnsweringConfig, BlipRetrieval, BlipRetrievalConfig
from weft.core.testing.vision_language import blip_fields
from weft.data import MediaRef, Retrieval
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.rerank import rerank
from weft.eval.evaluate.visual import Visual
from weft.eval.metrics.matches import Matches, Reranked, reranked_ranks, retrieval_scores
from weft.eval.readers import ReaderError, ask
from weft.eval.readers.ways.weft_blip import likeliest
from weft.eval.testing.own_subjects import paired_batches

IMAGES, CAPTIONS = 5, 2


def config(kind):
    wide = {"initializer_range": 0.5}
    return kind(**blip_fields(text=wide, vision=wide), encode_token_id=99)


class Shown(Visual):
    """Random pixels of every image, that are always the same."""

    def __call__(self, images):
        pixels = [torch.randn(2, 3, 16, 16, generator=seeded(refs[0].path)) for refs in images]
        return {"pixel_values": torch.stack(pixels)}


class Words:
    """Random tokens of every text, that are always the same."""

    pad_token_id = 0

    def __call__(self, texts, **options):
        ids = [torch.randint(5, 90, (6,), generator=seeded(text)).tolist() for text in texts]
        return {"input_ids": ids, "attention_mask": [[1] * 6 for _ in ids]}


def batches_of(found):
    return paired_batches(found.config, Words(), Shown(), {"task": TextRules()})


def seeded(name):
    return torch.Generator().manual_seed(int.from_bytes(name.encode(), "big") % 2**31)


RECORDS = [
    Retrieval(
        id=f"{image}-{text}",
        media=MediaRef.from_bytes(b"", f"{image}.png"),
        media_id=f"image {image}",
        text=f"text {image} {text}",
        text_id=f"text {image} {text}",
    )
    for image in range(IMAGES)
    for text in range(CAPTIONS)
]


def model(*units):
    torch.manual_seed(0)
    plain = BlipRetrieval(config(BlipRetrievalConfig)).eval()
    return attach(plain, list(units)) if units else plain


@torch.no_grad()
@pytest.mark.parametrize("frame_aware", [False, True])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_scores_are_those_of_every_pair_by_itself(weight, frame_aware):
    from weft.core.units.frame_attention import frame_weights

    whole = model({"method": "frame_attention"})
    found = rerank(
        whole,
        "task",
        RECORDS,
        batches_of(whole),
        candidates=3,
        similarity_weight=weight,
        frame_aware=frame_aware,
        batch_size=4,
    )
    second = found.reranked
    assert second.texts.shape == (IMAGES, 3)
    assert second.images.shape == (IMAGES * CAPTIONS, 3)
    similarity = found.image_features @ found.text_features.T
    by_text = {record.text_id: record for record in RECORDS}
    for image in range(IMAGES):
        assert second.texts[image].tolist() == np.argsort(-similarity[image])[:3].tolist()
        video = whole.encode_video(Shown()([RECORDS[CAPTIONS * image].media_refs()])["pixel_values"])
        for text in range(IMAGES * CAPTIONS):
            words = Words()([by_text[found.text_ids[text]].text])
            read = {name: torch.tensor(value) for name, value in words.items()}
            feature = torch.from_numpy(found.text_features[text])[None]
            weights = frame_weights(feature, video.frames) if frame_aware else None
            logit = whole.match(**read, tokens=video.tokens, frame_weights=weights)[0, 1].item()
            expected = logit + weight * similarity[image, text]
            for rows, columns, scores in (
                (image, second.texts == text, second.text_scores),
                (text, second.images == image, second.image_scores),
            ):
                assert scores[rows][columns[rows]] == pytest.approx(
                    [expected] * columns[rows].sum(), abs=1e-5
                )
    report = retrieval_scores(found, RECORDS, {})
    assert "best 3 texts and 3 images matched" in report.variant


def test_ranks_of_a_table_made_by_hand():
    # Three images, five texts; image 0 owns texts 0 and 1, image 1 text 2, image 2 texts 3 and 4.
    similarity = np.array([[9, 1, 8, 7, 0], [1, 2, 3, 9, 8], [5, 0, 9, 1, 2]], dtype=np.float32)
    matches = Matches(
        tuple("abcde"),
        ("x", "y", "z"),
        text_features=np.eye(5, dtype=np.float32),
        image_features=similarity,
        reranked=Reranked(
            "by hand",
            texts=np.array([[0, 2], [3, 4], [2, 0]]),
            text_scores=np.array([[0.1, 0.9], [0.4, 0.2], [0.3, 0.3]]),
            images=np.array([[0], [1], [2], [1], [1]]),
            image_scores=np.array([[0.5], [0.1], [0.2], [0.3], [0.4]]),
        ),
    )
    image_ranks, text_ranks = reranked_ranks(matches, [[0, 1], [2], [3, 4]])
    # Image 0 finds text 0 behind text 2; image 1 and 2 find theirs behind both candidates, where similarity decides.
    assert image_ranks.tolist() == [2, 3, 3]
    # Text 0 has its image; the others' lie behind the one candidate.
    assert text_ranks.tolist() == [1, 2, 3, 3, 2]
    best = matches.ranked(2)
    assert best["image_to_text"] == {"x": ["c", "a"], "y": ["d", "e"], "z": ["c", "a"]}


@torch.no_grad()
def test_every_candidate_matched_leaves_the_first_stage_no_say():
    whole = model()
    batches = batches_of(whole)
    found = rerank(whole, "task", RECORDS, batches, candidates=99, batch_size=4)
    scores = np.empty((IMAGES, IMAGES * CAPTIONS))
    for image in range(IMAGES):
        scores[image, found.reranked.texts[image]] = found.reranked.text_scores[image]
    for text in range(IMAGES * CAPTIONS):
        columns = found.reranked.images[text]
        assert found.reranked.image_scores[text] == pytest.approx(scores[columns, text])
    with pytest.raises(ScoreInputError, match="`candidates` must be at least 1, but is 0"):
        rerank(whole, "task", RECORDS, batches, candidates=0, batch_size=4)


ANSWERS = torch.tensor([[7, 20, 98, 0], [7, 20, 21, 98], [7, 30, 98, 0], [7, 40, 41, 98], [7, 30, 31, 98]])


@torch.no_grad()
def test_answers_ranked_in_two_steps_are_the_best_of_all():
    torch.manual_seed(0)
    answering = BlipAnswering(config(BlipAnsweringConfig)).eval()
    ids, mask = torch.randint(5, 90, (6, 6)), torch.ones(6, 6, dtype=torch.long)
    states = answering.encode_question(ids, mask, torch.randn(6, 3, 16, 16))
    answer_mask = (ANSWERS != 0).long()
    losses = torch.stack(
        [
            answering.answer_losses(
                ANSWERS[k : k + 1].expand(6, -1), answer_mask[k : k + 1].expand(6, -1), states, mask
            )
            for k in range(len(ANSWERS))
        ],
        dim=1,
    )
    whole = likeliest(answering, states, mask, ANSWERS, answer_mask, candidates=len(ANSWERS))
    assert whole.tolist() == losses.argmin(dim=1).tolist()
    first = answering.answer_logits(torch.full((6, 1), 7), torch.ones(6, 1), states, mask)[:, 0]
    by_first = first[:, ANSWERS[:, 1]]
    one = likeliest(answering, states, mask, ANSWERS, answer_mask, candidates=1)
    assert one.tolist() == by_first.argmax(dim=1).tolist()
    assert (by_first[:, 0] == by_first[:, 1]).all(), (
        "answers that begin alike are taken in the order of the list"
    )
    with pytest.raises(ReaderError, match="`candidates` and `answers` must hold at least one"):
        likeliest(answering, states, mask, ANSWERS, answer_mask, candidates=0)


class Answers(Words):
    """Answers a to e, and questions."""

    def __call__(self, texts, **options):
        if not set(texts) <= set("abcde"):
            return super().__call__(texts)
        rows = [ANSWERS["abcde".index(text)].tolist() for text in texts]
        return {"input_ids": rows, "attention_mask": [[int(token != 0) for token in row] for row in rows]}


def answering():
    torch.manual_seed(0)
    found = BlipAnswering(config(BlipAnsweringConfig)).eval()
    return found, paired_batches(found.config, Answers(), Shown(), {"task": TextRules()}).reader


def questions(count):
    return [ask(f"question {k}", [MediaRef.from_bytes(b"", f"{k}.png")]) for k in range(count)]


@pytest.mark.parametrize("keep", [1, 2, 128])
def test_a_blip_chooses_from_one_list_for_all_rows(keep):
    found, reader = answering()
    inputs, mask = reader.asking(questions(6)).inputs, (ANSWERS != 0).long()
    with torch.no_grad():
        states = found.encode_question(**inputs)
        best = likeliest(found, states, inputs["attention_mask"], ANSWERS, mask, candidates=keep)
    chosen = reader.choose(found, questions(6), [list("abcde")] * 6, keep=keep)
    assert chosen == ["abcde"[place] for place in best.tolist()]


def test_answers_of_each_row_are_scored_whole():
    found, reader = answering()
    lists = [list("ab"), list("cde"), list("a"), list("be")]
    scores = reader.score(found, questions(4), lists)
    best = [own[each.index(max(each))] for own, each in zip(lists, scores, strict=True)]
    assert reader.choose(found, questions(4), lists) == best
