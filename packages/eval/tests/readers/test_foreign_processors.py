"""A processor that comes with code of its own is refused, and its code is not run, whatever a terminal would answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weft.eval.readers.errors import MissingProcessorError
from weft.eval.readers.processor import load_processor


@pytest.mark.parametrize("options", [{}, {"trust_remote_code": True}], ids=["plain", "asked for"])
def test_code_that_comes_with_a_processor_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    ran = tmp_path / "ran"
    source = f"from transformers import ProcessorMixin\nopen({str(ran)!r}, 'w').close()\n"
    model = tmp_path / "model"
    model.mkdir()
    (model / "foreign.py").write_text(source + "class Foreign(ProcessorMixin):\n    pass\n")
    settings = {"processor_class": "Foreign", "auto_map": {"AutoProcessor": "foreign.Foreign"}}
    (model / "processor_config.json").write_text(json.dumps(settings))
    (model / "config.json").write_text(json.dumps({"model_type": "foreign", **settings}))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(MissingProcessorError, match="needs code of its own, which weft never runs"):
        load_processor(str(model), **options)
    assert not ran.exists()
