from __future__ import annotations

from pathlib import Path

import pytest

from weft.eval.compare import (
    Comparison,
    pareto_plot,
    published_rows,
    published_tables,
    rows_from_csv,
    to_csv,
    to_markdown,
    with_published,
)
from weft.eval.errors import ComparisonError

TABLE = "vl_adapter_image_bart"


@pytest.fixture
def ours() -> Comparison:
    scores = {"vqa": 60.0, "gqa": 50.0, "nlvr": 70.0, "caption": 110.0}
    return Comparison.from_rows(
        [{"method": "single_adapter", "scores": scores, "trainable": 4, "total": 100, "label": "ours"}]
    )


@pytest.mark.parametrize("table", published_tables())
def test_every_published_row_has_scores_a_source_and_how_sure_it_is(table: str) -> None:
    rows = published_rows(table)
    assert len({row.method for row in rows}) == len(rows)
    for row in rows:
        assert row.published is not None
        source, _, confidence = row.published.rpartition("; ")
        assert source
        assert confidence.startswith(("read in the ", "read in its ", "second hand"))
        assert all(0 < score < 160 for score in row.scores.values())


def test_published_rows_stand_beside_ours_and_are_never_best_nor_on_the_front(
    ours: Comparison, tmp_path: Path
) -> None:
    both = with_published(ours, [TABLE])
    theirs = both.entry("vl_pet/single_adapter")
    assert theirs.percent == 4.18
    assert theirs.scores["vqa"].mean == 65.76
    assert [entry.method for entry in both.front()] == ["single_adapter"]
    lines = to_markdown(both).splitlines()
    assert [line for line in lines if "**" in line] == [lines[2]]
    assert (
        "single adapter (VL-PET (ICCV 2023) table 2: VL-Adapter code, mean of 3 seeds; read in the"
        in lines[9]
    )
    assert pareto_plot(both, tmp_path / "p.png").stat().st_size > 10_000
    assert Comparison(rows_from_csv(to_csv(both))).entries == both.entries


def test_only_tasks_that_we_have_are_shown(ours: Comparison) -> None:
    some = Comparison.from_rows([{"method": "a", "scores": {"vqa": 1.0}}])
    assert with_published(some, [TABLE]).tasks == ("vqa",)
    with pytest.raises(
        ComparisonError, match=r"must share tasks with the comparison \(vqa\), but .* has tvqa"
    ):
        with_published(some, ["vl_adapter_video_bart"])


def test_a_table_of_ones_own_needs_a_source(ours: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("method,test/vqa,published\nx,3,\n", encoding="utf-8")
    with pytest.raises(ComparisonError, match=r"must say in `published` where it was printed .* such as 'x'"):
        published_rows(file)
    file.write_text("method,test/vqa,published\nx,3,page 4; read in the table\n", encoding="utf-8")
    assert with_published(ours, [file]).entry("x").scores["vqa"].mean == 3
    with pytest.raises(ComparisonError, match="Did you mean 'uniadapter_coco'"):
        published_rows("uniadaptr_coco")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "must be a CSV file in UTF-8, but .* cannot be read"),
        (
            b"method,test/vqa\nx,1,2,3\n",
            r"must have at most 2 cells, as the heading has, but line 2 has more",
        ),
        (b"method,test/vqa\nx,nan\n", "A score must be a finite number"),
        (b"method,test/vqa\nx,y\n", "Each score must be a number, but line 2"),
        (b"method,what\nx,1\n", "Rename the columns"),
        (b"", "must share tasks with the comparison"),
    ],
    ids=["bytes", "long line", "nan", "word", "column", "empty"],
)
def test_a_table_that_is_none_is_refused(
    ours: Comparison, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "mine.csv"
    file.write_bytes(content)
    with pytest.raises(ComparisonError, match=message):
        with_published(ours, [file])


def test_cells_of_a_table_may_be_long(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(f"method,test/vqa,published\nx,3,{'p' * 200_000}\n", encoding="utf-8")
    assert len(str(published_rows(file)[0].published)) == 200_000
