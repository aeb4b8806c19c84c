"""What a public project keeps at its root agrees with the sources: workflows, hooks, citation, notes of a release."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PACKAGES = ("kernels", "core", "data", "eval", "train")


def sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("session" in ast.unparse(mark) for mark in node.decorator_list)
    }


def project(package: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_sessions_that_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    jobs = yaml.safe_load(text)["jobs"].values()
    in_matrix = {
        name for job in jobs for name in job.get("strategy", {}).get("matrix", {}).get("session", [])
    }
    called = set(re.findall(r"nox -s (\w+)", text)) | in_matrix
    assert called
    assert called <= sessions()


def test_the_tests_run_on_every_python_that_the_packages_take() -> None:
    checks = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text("utf-8"))
    assert checks["jobs"]["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert {project(package)["requires-python"] for package in PACKAGES} == {">=3.11"}


def test_hooks_run_what_lint_runs_at_its_version() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    pin = re.search(r"^ruff==.*$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert pin is not None
    assert [hook["additional_dependencies"] for hook in hooks] == [[pin.group()]] * 2
    assert [hook["entry"].split()[:2] for hook in hooks] == [["ruff", "check"], ["ruff", "format"]]


def test_the_citation_names_the_version_of_the_packages_and_the_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {project(package)["version"] for package in PACKAGES} == {citation["version"]}
    assert citation["license"] == "MIT"
    assert len(citation["references"]) == 3


def test_the_container_installs_every_package() -> None:
    command = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text("utf-8"))["postCreateCommand"]
    assert all(f"packages/{package}" in command for package in PACKAGES)


def test_the_notes_of_a_release_are_its_section() -> None:
    spec = importlib.util.spec_from_file_location("release_notes", ROOT / "scripts" / "release_notes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    changes = "# Log\n\n## [Unreleased]\n\n- c\n\n## [0.2.0] - 2026-01-02\n\n### Added\n\n- b\n\n## [0.1.0]\n\n- a\n"
    assert module.notes("0.2.0", changes) == "### Added\n\n- b"
    assert module.notes("0.1.0", changes) == "- a"
    assert module.notes("Unreleased", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    with pytest.raises(ValueError, match=r"'0\.3\.0' has none"):
        module.notes("0.3.0", changes)
