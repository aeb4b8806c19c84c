"""An export on the Hugging Face hub, with its card."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils._validators import validate_repo_id

from weft.train.errors import RunError
from weft.train.runs.exporting.card import CARD, is_on_hub
from weft.train.runs.exporting.manifest import Manifest, read_manifest


def check_repository(repository: str) -> None:
    """Refuse a name that no repository can have.

    Raises:
        RunError: With the hub's reason.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise RunError(
            f"`--push` must be the id of a repository, such as organisation/name, but is {repository!r}: {error}"
        ) from None


def check_public(manifest: Manifest) -> None:
    """Refuse an export whose base model nobody else has.

    Raises:
        RunError: If adapters belong on a folder of this machine.
    """
    if manifest.target != "merged" and not manifest.is_split and not is_on_hub(manifest.base):
        raise RunError(
            f"`--push` needs a base model that others can load, but the adapters belong on {manifest.base!r}, a folder "
            "of this machine. Export it too, with --split, or export merged folders."
        )


def push(output: Path, repository: str, *, private: bool = True) -> str:
    """Put an export on the hub.

    Args:
        output: The export, with its card.
        repository: Id of the repository, made if it is missing.
        private: Whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        RunError: If the card is not valid, or the hub refuses it.
    """
    check_repository(repository)
    check_public(read_manifest(output))
    api = HfApi()
    try:
        ModelCard.load(output / CARD).validate()
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            folder_path=output, repo_id=repository, commit_message="Export of a run of weft"
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, ValueError, OSError) as error:
        raise RunError(
            f"`--push` must reach a repository that you may write, but the hub says of {repository!r}: "
            f"{str(error).strip()[:400]} Log in with `hf auth login`, or check the name."
        ) from None
    return str(done.commit_url)
