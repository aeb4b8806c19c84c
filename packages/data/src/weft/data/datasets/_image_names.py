"""Which files of a folder are images of the data set."""

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What notebooks, network drives and archivers put beside people's files; names with a dot in front are theirs too.
_FOREIGN = frozenset(
    {"@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found"}
)


def is_own_image(name: str) -> bool:
    """Tell whether a path is that of an image, and neither hidden nor put there by another program."""
    strange = any(part.startswith(".") or part in _FOREIGN for part in name.split("/"))
    return name.lower().endswith(IMAGE_ENDINGS) and not strange
