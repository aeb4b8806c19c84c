from collections import Counter, defaultdict

import pytest

from weft.data import load_dataset
from weft.data.errors import InvalidArgumentError, MissingFileError, UnknownNameError
from weft.data.scenes.captions import caption
from weft.data.scenes.examples import ScenePool, Template, draw_questions
from weft.data.scenes.pairs import draw_statements
from weft.data.scenes.questions import GQA_TEMPLATES, VQA_TEMPLATES
from weft.data.scenes.render import IMAGE_SIZE, render
from weft.data.scenes.scene import COLORS, GRID_SIZE, HELD_OUT, SHAPES, Scene, SceneObject, sample_scene
from weft.data.scenes.store import SceneStore

TRAIN = ScenePool.draw("train", 400, 0, allow_held_out=False)
TEST = ScenePool.draw("test", 400, 0, allow_held_out=True)
NUMBER = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}


def make_scene(*objects: tuple[int, int, str, str, str]) -> Scene:
    items = tuple(SceneObject(column=c, row=r, color=k, shape=s, size=z) for c, r, k, s, z in objects)
    return Scene(id="hand", objects=items, background=(240, 240, 240))


THREE = make_scene(
    (0, 2, "red", "star", "big"), (2, 0, "blue", "circle", "small"), (4, 4, "red", "circle", "small")
)


def test_a_scene_is_a_function_of_its_seed():
    assert sample_scene("a", 1) == sample_scene("a", 1)
    assert sample_scene("a", 1) != sample_scene("a", 2)


def test_no_two_objects_share_a_row_or_a_column():
    for scene in TEST.scenes:
        assert (
            len({o.row for o in scene.objects})
            == len({o.column for o in scene.objects})
            == len(scene.objects)
        )


def test_training_scenes_hold_no_held_out_combination_and_test_scenes_do():
    assert not any(scene.is_novel for scene in TRAIN.scenes)
    assert 0.15 < sum(scene.is_novel for scene in TEST.scenes) / len(TEST.scenes) < 0.6


def test_every_color_and_shape_still_occurs_in_training():
    assert {o.color for s in TRAIN.scenes for o in s.objects} == set(COLORS)
    assert {o.shape for s in TRAIN.scenes for o in s.objects} == set(SHAPES)
    assert {shape for _, shape in HELD_OUT} == set(SHAPES)


@pytest.mark.parametrize(("least", "most"), [(0, 3), (4, 3), (2, GRID_SIZE + 1)])
def test_numbers_of_objects_that_do_not_fit_are_refused(least, most):
    with pytest.raises(ValueError, match="1 <= min <= max"):
        sample_scene("a", 0, min_objects=least, max_objects=most)


def test_nearest_walks_columns_and_rows():
    star, blue, red = THREE.objects
    assert THREE.nearest(star, "right") == blue
    assert THREE.nearest(blue, "right") == red
    assert THREE.nearest(star, "above") == blue
    assert THREE.nearest(star, "below") == red
    assert THREE.nearest(star, "left") is None


def test_rendering_puts_each_color_in_its_cell():
    image = render(THREE)
    assert image.size == (IMAGE_SIZE, IMAGE_SIZE)
    cell = IMAGE_SIZE // GRID_SIZE
    for item in THREE.objects:
        center = ((item.column * cell) + cell // 2, (item.row * cell) + cell // 2)
        assert image.getpixel(center) == COLORS[item.color]
    assert image.getpixel((0, 0)) == (240, 240, 240)


def test_big_shapes_cover_more_than_small_ones():
    def ink(shape: str, size: str) -> int:
        pixels = render(make_scene((2, 2, "black", shape, size))).convert("L").tobytes()
        return sum(value < 100 for value in pixels)

    for shape in SHAPES:
        assert ink(shape, "big") > 1.5 * ink(shape, "small") > 0


def answer_by_hand(question: str, scene: Scene) -> str:
    """The answer read off the words of a question, by other code than that which wrote it."""
    words = question.rstrip("?").split()
    known = list(scene.objects)

    def named(tokens: list[str]) -> list[SceneObject]:
        wanted = [w for w in tokens if w in (*COLORS, *SHAPES, "small", "big")]
        return [o for o in known if all(w in (o.color, o.shape, o.size) for w in wanted)]

    if words[:2] == ["how", "many"]:
        return next(k for k, v in NUMBER.items() if v == len(named(words[2:3])))
    if words[:2] == ["is", "there"]:
        return "yes" if named(words[3:]) else "no"
    if words[0] == "are":
        split = words.index("and")
        first, second = named(words[1:split]), named(words[split + 1 : split + 4])
        return "yes" if first[0].size == second[0].size else "no"
    if words[0] == "is":
        way = next(w for w in words if w in ("left", "right", "above", "below"))
        at = words.index(way)
        first, second = named(words[1:at])[0], named(words[at + 1 :])[0]
        true = {
            "left": first.column < second.column,
            "right": first.column > second.column,
            "above": first.row < second.row,
            "below": first.row > second.row,
        }[way]
        return "yes" if true else "no"
    attribute = words[1]
    steps = [words[k + 1] for k, w in enumerate(words) if w == "just"]
    if not steps:
        (only,) = named(words[4:])
        return getattr(only, attribute)
    here = named(words[words.index("just") :])[0]
    for step in reversed(steps):
        here = scene.nearest(here, step)
    return getattr(here, attribute)


@pytest.mark.parametrize("templates", [VQA_TEMPLATES, GQA_TEMPLATES], ids=["vqa", "gqa"])
@pytest.mark.parametrize("pool", [TRAIN, TEST], ids=["train", "test"])
def test_every_answer_is_right(templates, pool):
    examples = list(draw_questions(templates, pool, 600, 0))
    assert len({e.id for e in examples}) == 600
    for example in examples:
        assert answer_by_hand(example.text, pool.scenes[example.scenes[0]]) == example.target, example


@pytest.mark.parametrize("templates", [VQA_TEMPLATES, GQA_TEMPLATES], ids=["vqa", "gqa"])
def test_answers_are_uniform_within_each_template(templates):
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in draw_questions(templates, TRAIN, 3_000, 0):
        counts[example.template.split(":")[0]][example.target] += 1
    for template in templates:
        shares = counts[template.name]
        assert set(shares) == set(template.answers)
        assert max(shares.values()) / sum(shares.values()) < 1.5 / len(template.answers)


def test_training_questions_never_name_a_held_out_combination():
    for example in draw_questions(VQA_TEMPLATES, TRAIN, 2_000, 0):
        assert not any(f"{color} {shape}" in example.text for color, shape in HELD_OUT)


def test_half_of_the_two_hop_questions_are_about_two_hops():
    texts = [e.text for e in draw_questions(GQA_TEMPLATES, TRAIN, 600, 0)]
    assert sum(text.count("just") == 2 for text in texts) == 200


def statement_by_hand(text: str, left: Scene, right: Scene) -> bool:
    words = text.split()
    if words[0] == "both":
        return all(s.with_kind(words[4], words[5]) for s in (left, right))
    if "more" in words:
        first, second = (left, right) if words[7] == "left" else (right, left)
        return first.count(words[3]) > second.count(words[3])
    if "total" in words:
        return left.count(words[4]) + right.count(words[4]) == NUMBER[words[3]]
    if "exactly" in words:
        return (left if words[1] == "left" else right).count(words[6]) == NUMBER[words[5]]
    return left.count(words[5]) > 0 and right.count(words[-1]) > 0


def test_every_statement_is_true_once_and_false_once():
    examples = list(draw_statements(TEST, 500, 0))
    groups: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        left, right = (TEST.scenes[k] for k in example.scenes)
        assert statement_by_hand(example.text, left, right) == (example.target == "true"), example
        groups[example.group].append(example.target)
    assert all(sorted(targets) == ["false", "true"] for targets in groups.values())


def test_a_caption_lists_every_object_from_left_to_right():
    assert caption(THREE) == "a big red star, a small blue circle and a small red circle"
    assert caption(make_scene((0, 0, "red", "star", "big"))) == "a big red star"


def test_a_pool_that_admits_no_question_says_so():
    never = Template("never", ("yes",), lambda scene, rng, pool, answer: None)
    with pytest.raises(ValueError, match=r"'never' with the answer 'yes'. Draw a larger pool"):
        list(draw_questions([never], TRAIN, 1, 0))


@pytest.mark.parametrize("task", ["vqa", "gqa", "nlvr", "caption"])
def test_the_data_set_gives_records_with_images(task):
    records = load_dataset("scenes", split="test", task=task, size=20, num_scenes=50)
    assert len(records) == 20
    assert {r.record_type for r in records} == {
        {"nlvr": "pair_bool", "caption": "caption"}.get(task, "image_qa")
    }
    images = [ref.image() for ref in records[0].media_refs()]
    assert all(image.size == (IMAGE_SIZE, IMAGE_SIZE) for image in images)
    assert len(images) == (2 if task == "nlvr" else 1)
    again = load_dataset("scenes", split="test", task=task, size=20, num_scenes=50)
    assert records.fingerprint() == again.fingerprint()


def test_tasks_of_a_split_speak_of_the_same_images():
    vqa = load_dataset("scenes", split="train", task="vqa", size=30, num_scenes=40)
    gqa = load_dataset("scenes", split="train", task="gqa", size=30, num_scenes=40)
    shared = {r.image.uri for r in vqa} & {r.image.uri for r in gqa}
    assert shared
    one = next(r.image for r in vqa if r.image.uri in shared)
    other = next(r.image for r in gqa if r.image.uri == one.uri)
    assert one.image().tobytes() == other.image().tobytes()


def test_splits_show_other_scenes():
    train = load_dataset("scenes", split="train", task="caption", size=40, num_scenes=40)
    test = load_dataset("scenes", split="test", task="caption", size=40, num_scenes=40)
    assert {ref.read() for r in train for ref in r.media_refs()}.isdisjoint(
        {ref.read() for r in test for ref in r.media_refs()}
    )


def test_a_misspelt_task_is_refused_with_near_matches():
    with pytest.raises(UnknownNameError, match="caption"):
        load_dataset("scenes", split="test", task="captoin")


@pytest.mark.parametrize("options", [{"size": 0}, {"num_scenes": 1}])
def test_sizes_too_small_are_refused(options):
    with pytest.raises(InvalidArgumentError, match="at least"):
        load_dataset("scenes", split="test", **options)


def test_a_store_knows_its_names_and_refuses_others():
    store = SceneStore("test", 3, 0, True)
    assert list(store.names()) == ["test-0.png", "test-1.png", "test-2.png"]
    assert store.exists("test-2.png")
    assert not store.exists("test-3.png")
    assert store.describe("test-1.png") == "scenes://test/0/test-1.png"
    with pytest.raises(MissingFileError, match=r"test-0.png to test-2.png, but is 'test-3.png'"):
        store.read("test-3.png")
