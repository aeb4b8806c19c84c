"""Every unit compiles, whole, into one graph that serves all routings; PEFT's own layers run between graphs."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from weft.core import attach
from weft.core.testing.sibling_types import SIBLINGS
from weft.core.testing.unit_contract import (
    ROWS,
    TASKS,
    UnitContract,
    adapted,
    outputs,
    pytest_ids,
    registered,
    with_tasks,
)
from weft.core.testing.vision_language import CASES

pytestmark = pytest.mark.slow

ROUTINGS = (list(ROWS), ["vqa"] * 4, ["gqa", "vqa", "gqa", "nlvr"])
UNITS = [
    pytest.param(config, backbone, id=f"{pytest_ids(config)}-{backbone}")
    for config in registered()
    for backbone in UnitContract()._backbones_of(config)
    if config.method != "peft"
]


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()


@pytest.mark.parametrize(("config", "backbone"), UNITS)
def test_one_graph_serves_all_routings(config, backbone):
    model, batch = adapted(with_tasks(config, backbone), backbone)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for routing in ROUTINGS:
        with torch.no_grad(), model.route(tasks=routing):
            torch.testing.assert_close(outputs(compiled, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)
    assert counter.frame_count == 1


def test_a_prompt_in_front_of_a_call_by_position_compiles():
    """BART gives its positions, and BERT its states, to their modules by position."""
    for build in (CASES["bert"], SIBLINGS["mbart"]):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model, batch = build()
        attach(model.eval(), {"method": "prompt", "length": 3, "sharing": "multiple"}, TASKS)
        counter = CompileCounter()
        compiled = torch.compile(model, backend=counter, fullgraph=True)
        pairs = len(batch["input_ids"]) // 2
        for routing in (["vqa", "gqa"] * pairs, ["nlvr", "vqa"] * pairs):
            with torch.no_grad(), model.route(tasks=routing):
                assert torch.equal(compiled(**batch)[0], model(**batch)[0])
        assert counter.frame_count == 1


def test_layers_of_peft_run_between_graphs():
    words = {"method": "peft", "config": {"peft_type": "LOHA", "r": 2, "alpha": 4}, "sharing": "multiple"}
    model, batch = adapted({**words, "layers": [0], "towers": ["vision"]}, "clip", ["vqa", "gqa"])
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    with torch.no_grad(), model.route(tasks=["vqa", "gqa", "gqa", "vqa"]):
        torch.testing.assert_close(outputs(compiled, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)
    assert counter.frame_count > 1
