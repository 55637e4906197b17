"""Real and fake samples are scored in one batch where the rows are independent, and only there."""

import copy

import pytest
import torch
from torch import Tensor, nn

from costs import peak_bytes_of
from critics import CRITICS
from updates import (
    BATCH,
    COUPLED,
    MinibatchStandardDeviation,
    adam,
    assert_close,
    compare_with_textbook,
    samples,
    sgd,
)
from wgan_fast import (
    CriticStep,
    reference,
)
from wgan_fast._critic import rows
from wgan_fast._critic.rows import rows_are_independent
from wgan_fast.losses import PROBED_KINDS


@pytest.mark.filterwarnings("ignore:critic. .* is a BatchNorm1d:UserWarning")
@pytest.mark.parametrize("name", ["mlp", "dcgan", *COUPLED])
def test_scored_in_one_batch_only_where_that_is_the_same(name: str) -> None:
    make, shape = (CRITICS | COUPLED)[name]
    critic = make()
    step = CriticStep(critic, adam(critic.parameters()), penalty=None)
    batch = samples(shape, dtype=torch.float32)
    for _ in range(2):  # both are asked whether rows are independent
        step(*batch)
    sizes: list[int] = []
    critic.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    step(*batch)
    assert sizes == ([BATCH, BATCH] if name in COUPLED else [2 * BATCH])


class Conditional(nn.Module):
    """A critic with labels; ``shared`` weights are the same for all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.embedding, self.head = nn.Linear(12, 8), nn.Embedding(4, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, labels: Tensor, shared: Tensor | None = None) -> Tensor:
        hidden = torch.relu(self.body(x) + self.embedding(labels))
        return self.head(hidden if shared is None else hidden @ shared)


@pytest.mark.parametrize(
    ("shape", "expected"), [(None, [2 * BATCH]), ((8, 8), [BATCH, BATCH]), ((BATCH, 8, 8), [2 * BATCH])]
)
def test_labels_are_scored_in_one_batch_where_that_is_the_same(
    shape: tuple[int, ...] | None, expected: list[int]
) -> None:
    """Arguments that do not hold one row for each sample have to wait for one another's batch."""
    critic = Conditional().double()
    labels, batch = torch.arange(BATCH) % 4, samples((12,))
    args = (labels,) if shape is None else (labels, torch.randn(shape, dtype=torch.float64))
    if shape is not None and len(shape) == 3:
        critic.forward = lambda x, labels, each: critic.head(torch.einsum("bi,bij->bj", critic.body(x), each))
    step = CriticStep(critic, sgd(critic.parameters()), penalty=None)
    other = copy.deepcopy(critic)
    if shape is not None and len(shape) == 3:
        other.forward = lambda x, labels, each: other.head(torch.einsum("bi,bij->bj", other.body(x), each))
    expected_step = CriticStep(lambda *args: other(*args), sgd(other.parameters()), penalty=None)  # not probed
    for _ in range(2):
        assert_close(step(*batch, *args), expected_step(*batch, *args))
    sizes: list[int] = []
    critic.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert_close(step(*batch, *args), expected_step(*batch, *args))
    assert sizes == expected


def test_coupling_that_shows_later() -> None:
    """Zeros in the last layer hide the coupling; then a submodule changes its training mode."""
    critic = MinibatchStandardDeviation().double()
    nn.init.zeros_(critic.head.weight)
    nn.init.zeros_(critic.head.bias)
    compare_with_textbook(critic, [samples((12,)) for _ in range(5)])

    critic = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).double()
    other = copy.deepcopy(critic)
    step = CriticStep(critic, sgd(critic.parameters()), penalty=None)
    expected_step = CriticStep(lambda x: other(x), sgd(other.parameters()), penalty=None)  # scored one after the other
    for i in range(6):
        for network in (critic, other):
            network[1].train(i % 3 != 0)
        batch = samples((12,))
        assert_close(step(*batch), expected_step(*batch))


def test_a_dropout_that_begins_later() -> None:
    """Dropout draws for the real samples first, then for the fake ones, as in the textbook."""
    critic = nn.Sequential(nn.Linear(12, 8), nn.Dropout(0.0), nn.ReLU(), nn.Linear(8, 1)).double()
    critic.p = nn.Parameter(torch.zeros(2))  # an attribute p that is not a dropout probability
    other = copy.deepcopy(critic)
    optimizer = sgd(other.parameters())
    step = CriticStep(critic, sgd(critic.parameters()))
    for i in range(5):
        for network in (critic, other):
            network[1].p = 0.5 if i > 2 else 0.0
        batch = samples((12,))
        torch.manual_seed(i)
        expected = reference.critic_step(other, optimizer, *batch)
        torch.manual_seed(i)
        assert_close(torch.stack(step(*batch)), expected)


class ByRow(nn.Module):
    """Conditional, with batches laid out by class: row i has class i % 3."""

    def __init__(self, effect: float, offset: float) -> None:
        super().__init__()
        self.body, self.head, self.classes = nn.Linear(12, 16), nn.Linear(16, 1), nn.Embedding(3, 16)
        nn.init.constant_(self.head.bias, offset)
        self.effect = effect

    def forward(self, x: Tensor) -> Tensor:
        classes = self.classes(torch.arange(len(x), device=x.device) % 3)
        return self.head(torch.relu(self.body(x) + self.effect * classes))


class ZeroByPlace(nn.Module):
    """A term that depends on a row's place, or on the size of the batch, and starts at zero."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.body, self.head = by, nn.Linear(12, 16), nn.Linear(16, 1)
        self.places = nn.Parameter(torch.ones(64, 16) if by == "factor" else torch.zeros(64, 16))
        self.gate = nn.Parameter(torch.zeros(()))
        self.listed = nn.ParameterList([nn.Parameter(torch.zeros(16)) for _ in range(64 if by == "list" else 0)])

    def forward(self, x: Tensor) -> Tensor:
        hidden, rows = self.body(x), self.places[: len(x)]
        if self.by == "place":
            hidden = hidden + rows
        elif self.by == "factor":
            hidden = hidden * rows
        elif self.by == "size":
            hidden = hidden + self.places[len(x)]
        elif self.by == "list":
            hidden = hidden + torch.stack(list(self.listed)[: len(x)])
        else:
            hidden = hidden + self.gate * (hidden - hidden.mean(0) if self.by == "gated mean" else rows + len(x))
        return self.head(hidden.relu())


ZERO = ["place", "factor", "size", "list", "gate", "gated mean"]


@pytest.mark.parametrize("by", ZERO)
def test_a_term_that_starts_at_zero(by: str) -> None:
    """The scores do not show that such a term depends on the place; its gradient does."""
    batches = [samples((12,), count) for count in (4, 7, 4, 7)]
    critic = ZeroByPlace(by)
    before = copy.deepcopy(critic.state_dict())
    for called in (critic, critic.forward):
        assert rows_are_independent(called, *samples((12,), dtype=torch.float32)) is False
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    compare_with_textbook(critic.double(), batches)


class BySize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) * (1 + 1e-4 * len(x)) + 5


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("offset", [0.0, 3.0, 1e3, 1e6])
@pytest.mark.parametrize("effect", [0.1, 1e-3])
def test_dependence_on_the_place(effect: float, offset: float, autocast: bool) -> None:
    critic = ByRow(effect, offset)
    real, fake = samples((12,), count=4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert not rows_are_independent(critic, real, fake)
    assert not rows_are_independent(critic.double(), real.double(), fake.double())
    compare_with_textbook(critic, [samples((12,), count) for count in (6, 6, 4, 4, 7)])


@pytest.mark.parametrize("rounding", ["tf32", "bf16", torch.bfloat16, torch.float16])
def test_coarser_rounding(monkeypatch: pytest.MonkeyPatch, rounding: str | torch.dtype) -> None:
    """Of float32 products, as PyTorch's settings allow, and of the scores' type."""
    dtype = torch.float32
    if isinstance(rounding, str):
        monkeypatch.setattr(rows, "float32_precision", lambda _: ("none", rounding))
    else:
        dtype = rounding
    for count in (4, 64):
        batch = samples((12,), count, dtype)
        assert rows_are_independent(CRITICS["mlp"][0]().to(dtype), *batch) is True
        for offset in (0.0, 3.0, 1e3):
            assert not rows_are_independent(ByRow(0.1, offset).to(dtype), *batch)


def test_dependence_on_the_size() -> None:
    compare_with_textbook(BySize().double(), [samples((12,)) for _ in range(3)])
    assert rows_are_independent(BySize(), *samples((12,), dtype=torch.float32)) is False


@pytest.mark.parametrize("name", ["mlp", "layer norm", "dcgan", "attention", "lstm"])
@pytest.mark.parametrize("autocast", [False, True])
def test_rounding_is_tolerated(name: str, autocast: bool) -> None:
    make, shape = CRITICS[name]
    for count in (5, 33, 64):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert rows_are_independent(make(), *samples(shape, count, torch.float32)) is True


def test_a_large_common_offset_leaves_it_open() -> None:
    critic, batch = nn.Linear(12, 1).double(), samples((12,))
    nn.init.constant_(critic.bias, 1e14)
    assert rows_are_independent(critic, *batch) is None


def test_a_critic_that_changes_its_input() -> None:
    critic = nn.Linear(12, 1)
    critic.register_forward_pre_hook(lambda _, inputs: inputs[0].mul_(0.5) and None)
    real, fake = samples((12,), dtype=torch.float32)
    before = real.clone(), fake.clone()
    assert rows_are_independent(critic, real, fake) is False
    assert torch.equal(real, before[0]) and torch.equal(fake, before[1])


@pytest.mark.parametrize("annealed", ["dropout", "batch size"])
def test_what_changes_at_each_call(annealed: str) -> None:
    """Probes are few, and so are the answers that are kept."""
    critic = nn.Sequential(nn.Linear(12, 16), nn.LeakyReLU(0.2), nn.Dropout(0.5), nn.Linear(16, 1))
    calls: list[int] = []
    step = CriticStep(critic, sgd(critic.parameters()), penalty=None)
    critic[0].register_forward_hook(lambda *_: calls.append(1))
    for i in range(100):
        if annealed == "dropout":
            critic[2].p = 0.5 * 0.99**i
        critic.train(annealed == "dropout")
        step(*samples((12,), BATCH + i * (annealed == "batch size"), torch.float32))
    probed = 1 if annealed == "dropout" else PROBED_KINDS
    independent = 0 if annealed == "dropout" else PROBED_KINDS
    assert len(calls) == 6 * probed + 2 * 100 - independent
    assert len(step._critic_loss._probed) <= PROBED_KINDS


def test_answers_of_the_probe() -> None:
    critic, (real, fake) = CRITICS["mlp"][0](), samples((12,), dtype=torch.float32)
    assert rows_are_independent(critic, real, fake) is True
    assert rows_are_independent(critic.forward, real, fake) is True  # a Module's method
    assert rows_are_independent(lambda x: critic(x), real, fake) is False  # not a Module
    assert rows_are_independent(critic, real, fake * torch.nan) is None
    for parameter in critic[-1].parameters():
        nn.init.zeros_(parameter)
    assert rows_are_independent(critic, real, fake) is True
    critic.register_forward_hook(lambda *call: torch.zeros_like(call[-1]))
    assert rows_are_independent(critic, real, fake) is None  # constant scores


@pytest.mark.parametrize("name", COUPLED)
def test_probe_restores_buffers_and_random_state(name: str) -> None:
    critic = COUPLED[name][0]()
    batch = samples((12,), dtype=torch.float32)
    buffers, random_state = copy.deepcopy(dict(critic.named_buffers())), torch.get_rng_state()
    assert rows_are_independent(critic, *batch) is False
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in critic.named_buffers())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_probe_restores_attributes() -> None:
    """A critic may keep what it computed at its first call; the probe must not leave it that of moved parameters."""

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 1)
            self.scale: Tensor | None = None
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.scale is None:
                self.scale = self.head.weight.detach().norm()
            return self.head(x) / self.scale

    critic = Keeping()
    assert rows_are_independent(critic, *samples((12,), dtype=torch.float32)) is True
    assert critic.scale is None and critic.calls == 0
    compare_with_textbook(Keeping().double(), [samples((12,)) for _ in range(3)])


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_an_offset_does_not_hide_what_rows_do(offset: float) -> None:
    """Scores that differ by less than their rounding are compared in float64."""
    critic = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))
    coupled = MinibatchStandardDeviation()
    for network in (critic, coupled):
        nn.init.constant_([*network.parameters()][-1], offset)
    assert rows_are_independent(critic, *samples((12,), dtype=torch.float32)) is True
    assert rows_are_independent(coupled, *samples((12,), dtype=torch.float32)) is False


def test_one_copy_of_the_parameters() -> None:
    """With a small batch, a copy is the probe's memory: a second one would be the peak of a step."""
    critic = nn.Sequential(nn.Linear(4, 512), nn.LeakyReLU(), nn.Linear(512, 1024), nn.LeakyReLU(), nn.Linear(1024, 1))
    real, fake = torch.randn(2, 3, 4)
    peak = peak_bytes_of(lambda: rows_are_independent(critic, real, fake), torch.device("cpu"))
    assert peak < 1.2 * sum(parameter.nbytes for parameter in critic.parameters())


class Shared(nn.Module):
    """One layer under two names, as wrappers of modules have it, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 3), nn.Linear(3, 1)
        self.again, self.tied = self.first, nn.Linear(3, 3)
        self.tied.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.again, self.tied):
            x = nn.functional.leaky_relu(layer(x), 0.2)
        return self.head(x)


@pytest.mark.parametrize("offset", [0.0, 1e6])  # the latter is probed in float64
def test_probe_restores_what_has_two_names(offset: float) -> None:
    critic = Shared()
    with torch.no_grad():
        critic.head.bias.fill_(offset)
    before = {name: (tensor, tensor.clone()) for name, tensor in critic.named_parameters(remove_duplicate=False)}
    assert rows_are_independent(critic, *torch.randn(2, 8, 3))
    after = dict(critic.named_parameters(remove_duplicate=False))
    assert all(after[name] is tensor and torch.equal(tensor, value) for name, (tensor, value) in before.items())


class Flattened(nn.Module):
    """Reads its transposed weight as one row of numbers, which only the strides that it has allow."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4).t())

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.weight.t().view(-1).view(3, 4).t()).sum(1)


def test_moved_parameters_keep_their_strides() -> None:
    assert rows_are_independent(Flattened(), *torch.randn(2, 5, 4))
