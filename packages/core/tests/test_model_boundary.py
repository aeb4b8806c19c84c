"""What an adapted model takes at its boundary: every argument is used, or refused."""

import gc
import inspect
import weakref

import pytest
import torch

from weft.core import attach
from weft.core.adapted.absent_tasks import Presence
from weft.core.adapted.module import SiteWeights, site_units
from weft.core.errors import ConfigError, RoutingError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, outputs
from weft.core.testing.vision_language import CASES

BOTTLENECK = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "multiple"}
TASKS = ["vqa", "gqa"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": {"image": ["vqa"] * 4}}, r"a key of `tasks` must be .* Choose one of cross, text, vision"),
        ({"tasks": {"texts": ["vqa"] * 4}}, r"a key of `tasks` must be .* Did you mean 'text'"),
        (
            {"task_ids": {"vison": torch.zeros(4, dtype=torch.int64)}},
            r"a key of `task_ids` .* Did you mean 'vision'",
        ),
        (
            {"task": "vqa", "owners": {"visio": torch.zeros(4, dtype=torch.int64)}},
            r"a key of `owners` must be .* Did you mean 'vision'",
        ),
    ],
)
def test_routes_ignore_nothing(arguments, message):
    model, _ = adapted(BOTTLENECK, "clip", TASKS)
    with pytest.raises(RoutingError, match=message), model.route(**arguments):
        pass


def test_ids_of_unknown_modalities_are_refused_in_the_call_too():
    model, batch = adapted(BOTTLENECK, "clip", TASKS)
    with pytest.raises(RoutingError, match=r"a key of `task_ids` .* Did you mean 'text'"):
        model(**batch, task_ids={"txt": torch.zeros(4, dtype=torch.int64)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"nonsense": 3},
            r"an argument of `save_pretrained` must be among the known names, but is 'nonsense'",
        ),
        ({"state_dit": {}}, r"Did you mean 'state_dict'"),
        (
            {"push_to_hub": True},
            r"`push_to_hub` must be False for an adapter, but is True. Call `model.push_to_hub",
        ),
        ({"safe_serialization": False}, r"`safe_serialization` must be True for an adapter"),
        ({"variant": "fp16"}, r"`variant` must be None for an adapter"),
    ],
)
def test_saving_ignores_nothing(tmp_path, options, message):
    model, _ = adapted(BOTTLENECK, "bart", TASKS)
    with pytest.raises(ConfigError, match=message):
        model.save_pretrained(tmp_path / "adapter", **options)
    assert not (tmp_path / "adapter").exists()


def test_only_the_main_process_writes(tmp_path):
    model, _ = adapted(BOTTLENECK, "bart", TASKS)
    model.save_pretrained(tmp_path / "other", is_main_process=False, state_dict={}, max_shard_size="5GB")
    assert not (tmp_path / "other").exists()
    model.save_pretrained(tmp_path / "main", is_main_process=True, state_dict=model.state_dict())
    assert (tmp_path / "main").exists()


def test_pictures_given_by_position_are_no_token_ids():
    torch.manual_seed(0)
    model, batch = CASES["blip2"]()
    assert next(iter(inspect.signature(model.forward).parameters)) == "pixel_values"
    attach(model.eval(), BOTTLENECK, TASKS)
    model.weft.image_tokens = (1,)
    model.set_task("vqa")
    pixels = batch.pop("pixel_values")
    seen = []
    store = model.weft
    using = type(store).using

    def spy(self, *arguments):
        seen.append(arguments[2])
        return using(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(type(store), "using", spy)
        model(pixels, **batch)
    assert seen[0]["token_modality"].shape == batch["input_ids"].shape


def test_signals_lie_where_the_rows_do():
    model, _ = adapted({**BOTTLENECK, "sharing": "half"}, "bart", TASKS)
    store, unit = model.weft, next(site_units(model))
    elsewhere = torch.device("meta")
    with store.using(None, True, {"frame_weights": torch.ones(4, 2)}):
        weights = SiteWeights(unit, None, {}, elsewhere)
    assert weights.signal("frame_weights").device == elsewhere
    assert weights.signal("nothing") is None


def test_models_under_one_optimiser_are_reduced_in_the_order_of_its_parameters():
    """As every process has that order; that of the models' addresses in memory is another one in each."""
    order = []
    collect = Presence.collect

    def spy(self):
        order.append(id(self))
        return collect(self)

    models = [adapted(BOTTLENECK, "bart", TASKS)[0] for _ in range(12)]
    expected = [id(model.weft.presence) for model in models]
    for turn in (1, -1):
        parameters = [value for model in models[::turn] for value in model.weft.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Presence, "collect", spy)
            order.clear()
            optimizer.step()
        assert order == expected[::turn]


def test_what_keeps_presence_does_not_keep_models():
    model, _ = adapted(BOTTLENECK, "bart", TASKS)
    store = weakref.ref(model.weft)
    del model
    gc.collect()
    assert store() is None


def test_frames_scale_the_whole_keys_wherever_the_method_stands_in_the_list():
    branch = {"method": "key_value_branch", "bottleneck_size": 4, "init": "repo", "stacks": ["decoder"]}
    frames = {"method": "frame_attention", "stacks": ["decoder"]}
    found = []
    for methods in ([branch, frames], [frames, branch]):
        model, batch = tiny_backbone("bart")
        attach(model, methods)
        torch.manual_seed(1)
        with torch.no_grad():
            for _, _, value in model.weft.slots():
                value.copy_(torch.linspace(-1, 1, value.numel()).view(value.shape))
            weights = torch.tensor([[1.5], [0.5], [1.2], [0.8]])
            with model.signal(frame_weights=weights):
                found.append(outputs(model, batch))
            assert not torch.equal(outputs(model, batch), found[-1])
    assert torch.equal(*found)
