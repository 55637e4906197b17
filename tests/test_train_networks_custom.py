"""Networks that users write: how they are found, and what they must return."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import LATENT
from wgan_fast.train.networks.mlp import MLPCritic
from wgan_fast.train.networks.named import Models, check_models, load_factory, make_models


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Writes a module into the current directory, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)

    def write(text: str, path: str = "their_networks.py") -> None:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("their_"):
            del sys.modules[name]


FACTORY = """
import torch

def make_generator(shape, latent_dimension, classes):
    assert classes == 0
    return torch.nn.Linear(latent_dimension, *shape)

network = torch.nn.Linear(1, 1)
number = 3
"""


@pytest.mark.parametrize("path", ["their_networks.py", "their_package/networks.py"])
def test_a_users_generator_replaces_the_named_one(path, user_module):
    user_module(FACTORY, path)
    factory = load_factory(f"{path.removesuffix('.py').replace('/', '.')}:make_generator")
    models = make_models("mlp", (2,), latent_dimension=LATENT, generator=factory)
    assert type(models.generator) is nn.Linear
    assert type(models.critic) is MLPCritic
    check_models(models, (2,), LATENT, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_networks", "expected module:function, such as my.module:make_generator, got 'their_networks'"),
        ("their_networks.py:make_generator", "there is no module 'their_networks.py'"),
        ("./their_networks.py:make_generator", "expected module:function"),
        ("their_networks:", "expected module:function"),
        (".their_networks:make_generator", "expected module:function"),
        ("their_network:make_generator", "there is no module 'their_network', neither installed nor in "),
        ("their_networks:make_critic", ".*their_networks.py has no 'make_critic'"),
        ("their_networks:number", "expected a function that returns .*, got .*, which is of type int"),
        ("their_networks:network", "expected a function that returns .*, got .*, which is of type Linear"),
    ],
)
def test_a_factory_that_is_not_there_is_named(name, message, user_module):
    user_module(FACTORY)
    with pytest.raises(ValueError, match=f"^generator: {message}"):
        load_factory(name)
    with pytest.raises(ValueError, match="^critic: "):
        load_factory(name, argument="critic")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import their_missing_dependency", "ModuleNotFoundError: No module named .* line 1"),
        ("def make(:", r"SyntaxError: invalid syntax \(their_networks.py, line 1\)"),
        ("def make(shape): pass", "TypeError: make.. got an unexpected keyword argument"),
        ("def make(**given):\n    raise KeyError('layers')", "KeyError: 'layers' .*their_networks.py, line 2"),
        (
            "import wgan_fast\ndef make(**given):\n    wgan_fast.critic_loss(1, 2)",
            r"\w*TypeError: real_scores: .*their_networks.py, line 3",
        ),
    ],
)
def test_an_error_inside_of_a_users_module_is_named_with_its_line(text, message, user_module):
    user_module(text)
    with pytest.raises(ValueError, match=f"^generator: {message}"):
        load_factory("their_networks:make")(shape=(2,), latent_dimension=2, classes=0)


class Returns(nn.Module):
    """What a function makes of the input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor):
        return self.function(inputs)


@pytest.mark.parametrize(
    ("role", "function", "message"),
    [
        ("generator", lambda z: z[:, :3], r"finite float32 samples \(2, 2\) from .*\(2, 6\), got shape \(2, 3\)"),
        ("generator", lambda z: z[:2, :2], r"finite float32 samples \(4, 2\) from .*, got shape \(2, 2\)"),
        ("generator", lambda z: z[:, :2].double(), "finite float32 samples .*, got torch.float64"),
        ("generator", lambda z: z[:, :2] / 0, "finite float32 samples .*, got NaN or infinity"),
        ("generator", lambda z: (z, z), "finite float32 samples .*, got tuple"),
        ("critic", lambda x: x, r"one finite score for each sample, of shape \(2,\) or \(2, 1\), .*got shape \(2, 2\)"),
        ("critic", lambda x: x.mean(), r"one finite score .*, got shape \(\)"),
        ("critic", lambda x: x[:, 0] * math.nan, "one finite score .*, got NaN or infinity"),
    ],
)
def test_what_a_network_must_return(role, function, message):
    models = Models(Returns(lambda z: z[:, :2]), Returns(lambda x: x[:, :1]))
    check_models(models, (2,), LATENT, 0)
    with pytest.raises(ValueError, match=f"^{role}: expected {message}"):
        check_models(models._replace(**{role: Returns(function)}), (2,), LATENT, 0)


def test_checking_changes_nothing():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.frozen = nn.Linear(LATENT, 2), nn.BatchNorm1d(2).eval()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, latent: Tensor) -> Tensor:
            assert not self.training
            self.calls += 1
            self.calls = self.calls + 1
            return self.frozen(self.body(latent)) + torch.randn(len(latent), 2)

    generator, critic = Counting(), MLPCritic(2, 4, 1)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    random_state = torch.get_rng_state()
    check_models(Models(generator, critic), (2,), LATENT, 0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert generator.training and not generator.frozen.training
    assert generator.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
