"""Models of types that no family declares: read by their structure where silencing sub-layers silences layers."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from weft.core import attach, plan
from weft.core.backbone.layer_structure import read_layer
from weft.core.backbone.resolving import resolve
from weft.core.errors import AddressError, BackboneError
from weft.core.testing.backbones import SIZES
from weft.core.testing.whole_mapping import shallow_model

WIDTH = 8


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.o_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden_states, mask):
        return self.o_proj(self.q_proj(hidden_states)), None


class Feedforward(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 2 * WIDTH)
        self.fc2 = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        return self.fc2(self.fc1(x).relu())


class Layer(nn.Module):
    """Norms first."""

    def __init__(self):
        super().__init__()
        self.attn_norm = nn.LayerNorm(WIDTH)
        self.self_attn = Attention()
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.mlp = Feedforward()
        self.extra = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.5)
        self.gate = nn.Parameter(torch.full((WIDTH,), 0.5))

    def forward(self, hidden_states, mask):
        attended, _ = self.self_attn(self.attn_norm(hidden_states), mask)
        hidden_states = hidden_states + self.gate * self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.mlp_norm(hidden_states)))


class Around(Layer):
    """A norm behind attention, none before it; the feed-forward block beside it."""

    def forward(self, hidden_states, mask):
        attended, _ = self.self_attn(hidden_states, mask)
        return hidden_states + self.attn_norm(attended) + self.mlp(self.mlp_norm(hidden_states))


class After(Layer):
    """The norm of a sum, as in BERT."""

    def forward(self, hidden_states, mask):
        hidden_states = self.attn_norm(hidden_states + self.self_attn(hidden_states, mask)[0])
        return self.mlp_norm(hidden_states + self.mlp(hidden_states))


class Branch(Layer):
    """Something else is added, too."""

    def forward(self, hidden_states, mask):
        return super().forward(hidden_states, mask) + self.extra(hidden_states)


class Idle(Layer):
    """The feed-forward block is computed in vain."""

    def forward(self, hidden_states, mask):
        self.mlp(self.mlp_norm(hidden_states))
        return hidden_states + self.self_attn(self.attn_norm(hidden_states), mask)[0]


class Elsewhere(Layer):
    """Attention reads something else than the stream."""

    def forward(self, hidden_states, mask):
        attended, _ = self.self_attn(self.attn_norm(hidden_states.flip(-1)), mask)
        return hidden_states + attended + self.mlp(self.mlp_norm(hidden_states))


def model_of(layer, count=2):
    model = nn.Module()
    model.config = SimpleNamespace(model_type="unheard_of")
    model.layers = nn.ModuleList([layer() for _ in range(count)])
    return model


def test_a_layer_with_norms_first_is_read():
    found = read_layer(Layer())
    assert (found["attention"].before, found["attention"].output) == ("attn_norm", "self_attn")
    assert found["attention"].linears == {"query": "self_attn.q_proj", "output": "self_attn.o_proj"}
    assert (found["ffn"].before, found["ffn"].output) == ("mlp_norm", "mlp")
    assert found["ffn"].linears == {"up": "mlp.fc1", "down": "mlp.fc2"}


def test_a_norm_behind_a_sub_layer_is_its_output_and_blocks_may_lie_beside_one_another():
    found = read_layer(Around())
    assert (found["attention"].before, found["attention"].output) == ("self_attn", "attn_norm")
    assert (found["ffn"].before, found["ffn"].output) == ("mlp_norm", "mlp")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (After, "with its sub-layers silenced, the layer does not return what it was given"),
        (Branch, "with its sub-layers silenced, the layer does not return what it was given"),
        (Idle, "its child 'mlp' adds nothing to what the layer returns"),
        (Elsewhere, "its child 'self_attn' reads neither the residual stream nor a norm of it"),
    ],
)
def test_what_is_no_sum_of_sub_layers_is_refused(layer, message):
    with pytest.raises(BackboneError, match=message):
        read_layer(layer())
    with pytest.raises(
        BackboneError, match=rf"is 'unheard_of'.*`layers.0` \({layer.__name__}\) is refused: {message}"
    ):
        resolve(model_of(layer))


def test_a_layer_without_sub_layers_or_width_is_refused():
    with pytest.raises(BackboneError, match=r"none of its children \(0\) is named as an attention"):
        read_layer(nn.Sequential(nn.Linear(2, 2)))
    bare = nn.Module()
    bare.mlp = nn.Module()
    with pytest.raises(BackboneError, match="the width of its residual stream cannot be read"):
        read_layer(bare)
    with pytest.raises(BackboneError, match="Nor can its structure be read: it has no list of layers"):
        resolve(model_of(lambda: nn.Linear(2, 2)))


def test_reading_leaves_the_layer_alone():
    layer = Layer().train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    read_layer(layer)
    assert layer.training
    assert layer.dropout.training
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert all(type(child).__module__ != "weft.core.backbone.layer_probe" for child in layer.children())


def test_it_is_said_what_was_read_by_its_structure():
    planned = plan(model_of(Layer), {"method": "lora", "rank": 2, "linears": ["query"]})
    assert planned.read_by_structure == ("unheard_of",)
    assert "read by its structure, as no family declares it: unheard_of" in str(planned)
    assert planned.to_dict()["read_by_structure"] == ["unheard_of"]
    assert planned.sites[0].address == "text.0.attention.query"


def test_it_is_read_again_after_adapters_are_attached():
    model = model_of(Layer)
    before = resolve(model)
    attach(
        model,
        [
            {"method": "bottleneck", "init": "bert", "bottleneck_size": 2},
            {"method": "lora", "rank": 2, "linears": ["query"]},
        ],
    )
    assert [site.address for site in resolve(model).sites] == [site.address for site in before.sites]


def test_a_tower_that_cannot_be_read_is_left_without_sites():
    if "got_ocr2" not in transformers.CONFIG_MAPPING:
        pytest.skip("this release of transformers has no GOT-OCR 2")
    model = shallow_model("got_ocr2")
    method = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4}
    planned = plan(model, method)
    assert {site.tower for site in planned.sites} == {"text"}
    assert "no sites in vision: " in str(planned)
    with pytest.raises(
        AddressError, match="`towers` must name towers whose layers are known, but those of vision"
    ):
        plan(model, {**method, "towers": ["vision"]})


def test_the_largest_dinov2_has_sites_at_its_gated_blocks():
    config = transformers.Dinov2Config(**SIZES, image_size=16, patch_size=8, use_swiglu_ffn=True)
    model = transformers.Dinov2Model(config).eval()
    sites = resolve(model)
    maps = {path for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert maps == {site.path for site in sites.sites if site.role}
    assert sites["vision.0.ffn"].width == 16
