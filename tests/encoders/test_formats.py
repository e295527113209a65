"""Weight files as they are published: made here in their true layout, and held against the libraries they come from."""

import os
import pickle
import warnings
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from lamella.encoders import EncoderSpec, find_encoder
from lamella.encoders.network import build_network
from lamella.encoders.pickles import StandIn, load_inertly
from lamella.errors import WeightsError

TILES = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(9)).float()


def normalised(name: str) -> torch.Tensor:
    """Return the tiles as the encoder's card has them normalised."""
    card = find_encoder(name)
    return (TILES / 255 - torch.tensor(card.mean).view(3, 1, 1)) / torch.tensor(card.std).view(3, 1, 1)


def embed(name: str, path: Path) -> torch.Tensor:
    """Encode the tiles with weights from a file."""
    with torch.inference_mode():
        return build_network(EncoderSpec(name, str(path)))(TILES)


def make_torchvision(network: str) -> nn.Module:
    """Build a network of torchvision whose normalisation has seen something."""
    torch.manual_seed(3)
    made = getattr(torchvision.models, network)(weights=None)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
    return made.eval()


def pool_resnet(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    network.fc = nn.Identity()
    with torch.inference_mode():
        return network(images)


def pool_densenet(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    network.classifier = nn.Identity()
    with torch.inference_mode():
        return network(images)


class HParams:
    """An object of a class that a reader's machine need not have."""

    def __init__(self) -> None:
        self.lr = 0.1
        self.betas = [0.9, 0.99]


def save_lightning(network: nn.Module, path: Path) -> None:
    """Save as Lightning 1.x saved Ciga's network: its weights beside optimiser states and objects of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning.pytorch")

    class SimCLR(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.resnet = network
            self.projection_head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))

    class Training(lightning.LightningModule):
        def __init__(self, settings: HParams) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = SimCLR()

        def training_step(self, batch, _index):
            return self.model.projection_head(batch[0]).sum() * 0

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own, about torch and about workers
        trainer = lightning.Trainer(
            max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(2, 512)))
        trainer.fit(Training(HParams()), data)
        trainer.save_checkpoint(path)


def test_cigas_checkpoint_is_read_as_lightning_writes_it(tmp_path):
    network = make_torchvision("resnet18")
    path = tmp_path / "tenpercent_resnet18.ckpt"
    save_lightning(network, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # it holds more than tensors, as the published one does
    network.eval()
    torch.testing.assert_close(
        embed("resnet18-ciga", path), pool_resnet(network, normalised("resnet18-ciga")), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("old", [False, True])
def test_cigas_layout_is_read_in_both_forms_of_torchs_files(tmp_path, old):
    network = make_torchvision("resnet18")
    state = {f"model.resnet.{key}": tensor for key, tensor in network.state_dict().items() if not key.startswith("fc")}
    state |= {"model.resnet.fc.0.weight": torch.ones(3, 512), "model.projection.weight": torch.ones(2, 2)}
    path = tmp_path / "tenpercent_resnet18.ckpt"
    torch.save(
        {"epoch": 9, "hparams": HParams(), "callbacks": {HParams: {"best": torch.tensor(1.0)}}, "state_dict": state},
        path,
        _use_new_zipfile_serialization=not old,
    )
    found = embed("resnet18-ciga", path)
    torch.testing.assert_close(found, pool_resnet(network, normalised("resnet18-ciga")), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "network", "pool"),
    [
        ("resnet50-mormont", "resnet50", pool_resnet),
        ("densenet121-mormont", "densenet121", pool_densenet),
    ],
)
def test_mormonts_layout_is_read(tmp_path, name, network, pool):
    made = make_torchvision(network)
    state = {f"features.{key}": tensor for key, tensor in made.state_dict().items()}
    state = {key: tensor for key, tensor in state.items() if not key.startswith(("features.fc", "features.classifier"))}
    state |= {"heads.3.weight": torch.ones(2, 5), "heads.3.bias": torch.ones(2)}
    path = tmp_path / f"{network}-mh-best-191205-141200.pth"
    torch.save(state, path)
    found = embed(name, path)
    if network == "densenet121":  # torchvision pools after its last ReLU, as we do
        torch.testing.assert_close(found, pool(made, normalised(name)), rtol=0, atol=1e-4)
    else:
        torch.testing.assert_close(found, pool(made, normalised(name)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("digit", [0, 1, 2, 3])
def test_efficientnet_pytorchs_files_give_what_its_own_package_gives(tmp_path, digit):
    package = pytest.importorskip("efficientnet_pytorch")
    torch.manual_seed(digit)
    network = package.EfficientNet.from_name(f"efficientnet-b{digit}", image_size=64).eval()
    path = tmp_path / f"efficientnet-b{digit}.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    name = f"efficientnet-b{digit}-pytorch"
    with torch.inference_mode():
        wanted = network.extract_features(normalised(name)).mean(dim=(2, 3))
    torch.testing.assert_close(embed(name, path), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("digit", [0, 3])
def test_torchvisions_efficientnets_give_what_torchvision_gives(tmp_path, digit):
    network = make_torchvision(f"efficientnet_b{digit}")
    path = tmp_path / "efficientnet.pth"
    torch.save(network.state_dict(), path)
    name = f"efficientnet-b{digit}-torchvision"
    with torch.inference_mode():
        wanted = network.features(normalised(name)).mean(dim=(2, 3))
    torch.testing.assert_close(embed(name, path), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet34", "densenet169"])
def test_torchvisions_files_give_what_torchvision_gives(tmp_path, name):
    network = make_torchvision(name)
    path = tmp_path / f"{name}.pth"
    torch.save(network.state_dict(), path)
    pool = pool_resnet if name.startswith("resnet") else pool_densenet
    torch.testing.assert_close(embed(name, path), pool(network, normalised(name)), rtol=0, atol=1e-4)


def test_an_old_densenet_is_read(tmp_path):
    network = make_torchvision("densenet121")
    old = {
        key.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2.")
        if "denselayer" in key
        else key: tensor
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    path = tmp_path / "densenet121-a639ec97.pth"
    torch.save(old, path)
    wanted = pool_densenet(network, normalised("densenet121"))
    torch.testing.assert_close(embed("densenet121", path), wanted, rtol=0, atol=1e-4)


def test_timms_file_of_a_histology_network_is_read(tmp_path):
    network = timm.create_model("resnet18", num_classes=4).eval()
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    with torch.inference_mode():
        wanted = network.forward_head(network.forward_features(normalised("resnet18")), pre_logits=True)
    torch.testing.assert_close(embed("resnet18", path), wanted, rtol=0, atol=1e-5)


class Hostile:
    """Runs a command when it is unpickled the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch '{self.target}'",)


class HostileBuild:
    """Names `eval` and hands it code."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return eval, (f"__import__('pathlib').Path({str(self.target)!r}).touch()",)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", [Hostile, HostileBuild])
def test_a_hostile_file_runs_nothing_and_what_is_honest_in_it_is_read(tmp_path, kind, old):
    target = tmp_path / "ran"
    network = make_torchvision("resnet18")
    state = {f"model.resnet.{key}": tensor for key, tensor in network.state_dict().items()}
    path = tmp_path / "hostile.ckpt"
    torch.save({"state_dict": state, "callbacks": [kind(target)]}, path, _use_new_zipfile_serialization=not old)
    embed("resnet18-ciga", path)
    assert isinstance(load_inertly(path)["callbacks"][0], StandIn)
    torch.save(kind(target), path, _use_new_zipfile_serialization=not old)
    with pytest.raises(WeightsError, match="were not run"):
        embed("resnet18-ciga", path)
    assert not target.exists()
    pickle.loads(pickle.dumps(kind(target)))  # the ordinary way it does run: the test can fail
    assert target.exists()


def test_keys_that_do_not_fit_are_named(tmp_path):
    network = make_torchvision("resnet18")
    path = tmp_path / "cut.pth"
    state = network.state_dict()
    del state["layer4.1.conv2.weight"]
    state["extra.weight"] = torch.ones(1)
    state["conv1.weight"] = torch.ones(64, 1, 7, 7)
    torch.save(state, path)
    with pytest.raises(WeightsError) as raised:
        embed("resnet18", path)
    for part in ("layer4.1.conv2.weight", "extra.weight", "conv1.weight 64 x 1 x 7 x 7"):
        assert part in str(raised.value)
