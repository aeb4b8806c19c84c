"""A data set of the Hugging Face hub, or a folder or files in its formats, by repository, revision and columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from weft.data.catalog import DatasetSpec
from weft.data.errors import InvalidArgumentError
from weft.data.records.hub import hub_records
from weft.data.records.record import Record
from weft.data.records.source import MediaFolder, Source
from weft.data.sources.folders import FolderStore


def read(
    source: Source,
    split: str,
    *,
    record: str = "image_qa",
    columns: Mapping[str, str | Sequence[str]],
    repo: str | None = None,
    revision: str | None = None,
    config: str | None = None,
    classes: Sequence[str] | None = None,
    media_root: str = "",
) -> Sequence[Record]:
    """The rows of a split as records, made when they are asked for; images stay encoded until then.

    The rows are in the cache of `datasets`, which is mapped into memory and not read.

    The root is a folder in the hub's format, where `repo` names none.

    Options:
        record: Type of the records, such as "image_qa".
        columns: Record field, or part of a conversation, to column name.
        repo: Repository id on the hub.
        revision: Commit or tag of the repository, which must be given: data sets of the hub move.
        config: Configuration of the repository.
        classes: Class names in label order; by default those of the label column.
        media_root: Folder below a local root that paths of images start from, where rows hold paths.

    Raises:
        InvalidArgumentError: There is neither a repository nor a local folder, or a repository has no revision.
    """
    folder = source.store
    if not repo and not (isinstance(folder, FolderStore) and Path(folder.url).is_dir()):
        raise InvalidArgumentError(
            f"`root` must be a local folder in the hub's format where `repo` is not given, but is "
            f"{folder.describe()!r}. Name the repository in `options: {{repo: org/name, revision: COMMIT}}`."
        )
    if not repo and not any(folder.names()):
        source.find(f"data/{split}-00000-of-00001.parquet", f"{split}.parquet", f"{split}.jsonl")
    media, named = MediaFolder(folder, media_root.strip("/")), dict(columns)
    options = {"revision": revision, "name": config, "classes": classes}
    return hub_records(repo, split, media, record=record, columns=named, **options)


SPEC = DatasetSpec(
    name="hub",
    record_type="image_qa",
    splits=(),
    read=read,
    draw=read,
    summary="A data set of the Hugging Face hub, or a local folder in its format, by columns.",
    licence="that of the data",
    how_to_get="Name the repository with options repo=org/name revision=COMMIT, or give a folder in the hub's format.",
    needs_root=False,
)
