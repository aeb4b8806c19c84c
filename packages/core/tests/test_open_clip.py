"""open_clip's models: adapted after their attention; what cannot be is refused.

open_clip needs a torchvision of the same build as torch, so a class of its structure stands in for it where it is
absent: the names of modules, the calls and the shapes are open_clip's. `nox -s open_clip` installs open_clip itself.
"""

import pytest
import torch
from torch import nn

from weft.core import attach, detach, load_adapter, plan
from weft.core.backbone.resolving import resolve
from weft.core.errors import AddressError, AttachError, BackboneError, CheckpointError
from weft.core.files.plain import save_plain
from weft.core.testing.unit_contract import move_slots

WIDTH, ROWS = 16, 4


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.ls_1, self.ls_2 = nn.Identity(), nn.Identity()
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(WIDTH, 2 * WIDTH))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x, mask=None):
        read = self.ln_1(x)
        x = x + self.ls_1(self.attn(read, read, read, need_weights=False, attn_mask=mask)[0])
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.resblocks = nn.ModuleList([Block(), Block()])

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 8, 8, bias=False)
        self.transformer = Transformer()
        self.proj = nn.Parameter(torch.randn(WIDTH, 8))

    def forward(self, image):
        tokens = self.conv1(image).flatten(2).transpose(1, 2)
        return self.transformer(tokens).mean(dim=1) @ self.proj


class CLIP(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Visual()
        self.transformer = Transformer()
        self.token_embedding = nn.Embedding(50, WIDTH)
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, 8))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def encode_text(self, text):
        mask = torch.full((text.shape[1],) * 2, -torch.inf).triu(1)
        states = self.ln_final(self.transformer(self.token_embedding(text), mask))
        return states[torch.arange(len(text)), text.argmax(dim=-1)] @ self.text_projection

    def forward(self, image, text):
        encoded = self.visual(image), self.encode_text(text)
        return *(nn.functional.normalize(each, dim=-1) for each in encoded), self.logit_scale.exp()


CLIP.__module__, CLIP.__qualname__ = "open_clip.model", "CLIP"

METHOD = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "multiple"}
TASKS = ["vqa", "gqa"]


TEXT = {"context_length": 6, "vocab_size": 50, "width": WIDTH, "heads": 2, "layers": 2}
VISION = {"image_size": 16, "patch_size": 8, "width": WIDTH, "head_width": 8, "layers": 2}


def theirs(name="CLIP", vision=None, **text):
    """A model of open_clip itself."""
    open_clip = pytest.importorskip("open_clip", reason="run `nox -s open_clip`")
    return getattr(open_clip, name)(8, vision or VISION, {**TEXT, **text})


KINDS = {
    "structure": CLIP,
    "open_clip": theirs,
    "open_clip with scales": lambda: theirs("CLIP", {**VISION, "ls_init_value": 0.1}, ls_init_value=0.1),
    "open_clip with a text module": lambda: theirs("CustomTextCLIP"),
}


@pytest.fixture(params=KINDS)
def clip(request):
    return lambda: built(KINDS[request.param])


def built(kind):
    torch.manual_seed(0)
    model = kind().eval()
    return model, (torch.randn(ROWS, 3, 16, 16), torch.randint(1, 50, (ROWS, 6)))


def computed(model, batch):
    image, text = model(*batch)[:2]
    return torch.cat([image, text], dim=-1)


@pytest.mark.parametrize("placement", ["serial", "parallel"])
def test_every_sub_layer_of_both_towers_is_adapted(clip, placement):
    model, batch = clip()
    with torch.no_grad():
        expected = computed(model.requires_grad_(False), batch)
        attach(model, {**METHOD, "placement": placement, "init": "zero"}, TASKS)
        with model.route(tasks=["vqa", "gqa", None, "vqa"]):
            assert torch.equal(computed(model, batch), expected)
    addresses = {site.address for site in model.weft.plan.sites}
    assert addresses == {
        f"{tower}.{layer}.{block}"
        for tower in ("text", "vision")
        for layer in (0, 1)
        for block in ("attention", "ffn")
    }
    with model.route(tasks=["vqa", "gqa", "vqa", "gqa"]):
        computed(model, batch).square().sum().backward()
    assert all(value.grad is not None for _, _, value in model.weft.slots())
    assert any(value.grad.any() for key, _, value in model.weft.slots() if "attention" in key)
    assert torch.equal(computed(detach(model), batch), expected)


def test_mixed_rows_and_files(clip, tmp_path):
    model, batch = clip()
    attach(model, METHOD, TASKS)
    move_slots(model, 0.1)
    with torch.no_grad():
        with model.route(tasks=["vqa", "gqa", "gqa", "vqa"]):
            mixed = computed(model, batch)
        for task, rows in (("vqa", [0, 3]), ("gqa", [1, 2])):
            with model.route(task=task):
                alone = computed(model, [each[rows] for each in batch])
            torch.testing.assert_close(mixed[rows], alone, atol=1e-6, rtol=1e-6)
        # The halves of the model are called one by one, too.
        with model.route(tasks=["vqa", "gqa", "gqa", "vqa"]):
            text = nn.functional.normalize(model.encode_text(batch[1]), dim=-1)
            torch.testing.assert_close(text, mixed[:, 8:], atol=1e-6, rtol=1e-6)
        model.save_pretrained(tmp_path)
        other, _ = clip()
        load_adapter(other, tmp_path)
        with other.route(tasks=["vqa", "gqa", "gqa", "vqa"]):
            assert torch.equal(computed(other, batch), mixed)


def test_maps_inside_the_attention_are_refused_and_those_of_the_block_are_not(clip):
    model, batch = clip()
    with pytest.raises(AddressError, match=r"`linears` must be among the known names, but is 'query'"):
        attach(model, {"method": "lora", "rank": 2})
    assert resolve(model)["vision.0.ffn.down"].path == "visual.transformer.resblocks.0.mlp.c_proj"
    before = computed(model, batch)
    attach(model, {"method": "lora", "rank": 2, "linears": ["up", "down"]})
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(0.1)
    assert not torch.allclose(computed(model, batch), before)
    with pytest.raises(AttachError, match="units already"):
        attach(model, METHOD)


def residual_network():
    """A model whose vision tower is one of convolutions, as that of RN50."""
    return theirs("CLIP", {"layers": (1, 1, 1, 1), "width": 8, "image_size": 32, "head_width": 8})


def structure_of_one():
    model = CLIP()
    model.visual = nn.Sequential(nn.Conv2d(3, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return model


@pytest.mark.parametrize("kind", [structure_of_one, residual_network], ids=["structure", "open_clip"])
def test_beside_a_tower_of_convolutions_the_text_tower_is_adapted(kind):
    torch.manual_seed(0)
    model, batch = kind().eval(), (torch.randn(ROWS, 3, 32, 32), torch.randint(1, 50, (ROWS, 6)))
    expected = computed(model.requires_grad_(False), batch)
    planned = plan(model, METHOD)
    assert {site.tower for site in planned.sites} == {"text"}
    assert "no sites in vision: The" in str(planned)
    with pytest.raises(AddressError, match=r"those of vision are not. The .* at `visual` has no layers"):
        plan(model, {**METHOD, "towers": ["vision"]})
    attach(model, {**METHOD, "init": "zero"}, TASKS)
    with model.route(tasks=["vqa", "gqa", None, "vqa"]):
        assert torch.equal(computed(model, batch), expected)
    with model.route(tasks=["vqa", "gqa", "vqa", "gqa"]):
        computed(model, batch).square().sum().backward()
    assert all(value.grad is not None for _, _, value in model.weft.slots())


def test_a_text_tower_of_another_kind_is_refused():
    model = CLIP()
    model.transformer = nn.Linear(WIDTH, WIDTH)
    with pytest.raises(BackboneError, match=r"family 'open_clip' expects a tower 'text'"):
        plan(model, METHOD)


def test_a_model_of_another_library_is_no_plain_folder_of_transformers(tmp_path):
    with pytest.raises(CheckpointError, match="to be saved as a plain folder, but is a CLIP"):
        save_plain(attach(CLIP(), METHOD), tmp_path / "out")
