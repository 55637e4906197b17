"""The cost of a penalty and of a critic's step, in counts that do not depend on the machine, against exact bounds.
Benchmarks measure times; tests/instructions/ counts the instructions of the CPU kernels.
"""

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from costs import (
    CRITICS,
    CURVED,
    FOR_CPU,
    Counter,
    Penalty,
    count,
    flops,
    kernels_of,
    launches_of,
    peak_bytes_of,
    peak_memory,
    update,
)
from wgan_fast import CriticStep, clip_weights_, gradient_penalty, interpolate, r1_penalty, r1_r2_penalty, reference
from wgan_fast._critic.layers import CriticLayers
from wgan_fast.bench import mlp
from wgan_fast.optim import RMSprop

IMAGES = 32  # a smaller batch, which is counted faster
TABLES_ARE_OF = "2.13"  # PyTorch release; another may decompose operators differently
of_this_torch = pytest.mark.skipif(
    not torch.__version__.startswith(f"{TABLES_ARE_OF}."), reason=f"the table is of PyTorch {TABLES_ARE_OF}"
)

Update = Callable[[], object]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The counts do not depend on the number of threads, and one thread is faster on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def critic_and_samples(name: str, device: str = "cpu") -> tuple[nn.Module, Tensor, Tensor]:
    make, (batch, *sample) = CRITICS[name]
    real, fake = torch.randn(2, min(batch, IMAGES) if len(sample) == 3 else batch, *sample, device=device)
    return make().to(device), real, fake


def penalised(name: str, *, textbook: bool = False, device: str = "cpu") -> Update:
    """A penalty with its backward; the old gradients are released first."""
    critic, real, fake = critic_and_samples(name, device)
    penalty = reference.gradient_penalty if textbook else gradient_penalty
    t = torch.rand(len(real), device=device)

    def update() -> None:
        critic.zero_grad()
        penalty(critic, real, fake, t=t).backward()

    return update


def r3gan_update(critic: nn.Module, real: Tensor, fake: Tensor) -> None:
    """The gradients of R3GAN's published update: one forward of each batch, one backward."""
    scores, penalties = [], []
    for samples in (real, fake):
        points = samples.detach().requires_grad_()
        scores.append(critic(points))
        (gradient,) = torch.autograd.grad(scores[-1].sum(), points, create_graph=True)
        penalties.append(5.0 * gradient.square().flatten(1).sum(1).mean())
    (F.softplus(scores[1] - scores[0]).mean() + sum(penalties)).backward()


def stepped(name: str, *, textbook: bool = False, penalty: Penalty = gradient_penalty) -> Update:
    critic, real, fake = critic_and_samples(name)
    adam = torch.optim.Adam(critic.parameters())
    if textbook:
        return functools.partial(reference.critic_step, critic, adam, real, fake)
    step = CriticStep(critic, adam, penalty=penalty, backend="eager")
    for _ in range(2):  # the 1st, 2nd, 4th and 8th step ask whether the rows of a batch are independent
        step(real, fake)
    return functools.partial(step, real, fake)


@functools.cache
def counted(update: Callable[..., Update], name: str) -> tuple[Counter, int]:
    """The dispatched operators, and the peak memory. Counts call 3 of a step and takes the peak of call 5; calls 1, 2
    and 4 also run the probe of the rows' independence.
    """
    function = update(name)
    return count(function), peak_bytes_of(function, torch.device("cpu"))


def flops_of_layers(name: str) -> list[int]:
    """FLOPs of a forward, for each layer that has any."""
    critic, x, _ = critic_and_samples(name)
    flops = []
    with torch.no_grad():
        for layer in critic:
            with Counter() as counter:
                x = layer(x)
            flops.append(counter.flops)
    return [n for n in flops if n]


@pytest.mark.parametrize("name", [*FOR_CPU, "tiny"])
class TestFlops:
    """In forwards of one batch. Each layer has one product for its output, one for the gradient of its weight and one
    for that of its input.
    """

    def test_penalty(self, name: str) -> None:
        """Products for the scores, for their gradient, for its backward pass and for the weights' gradients. The
        gradient of the scores is constant, so the backward pass ends before the last layer.
        """
        *layers, last = flops_of_layers(name)
        counter, _ = counted(penalised, name)
        assert counter.flops == 4 * sum(layers) + 3 * last
        assert name == "tiny" or counter.flops <= 0.68 * count(penalised(name, textbook=True)).flops

    def test_step(self, name: str) -> None:
        """Besides the penalty, two batches are scored and differentiated, except with respect to the samples."""
        first, *layers, last = flops_of_layers(name)
        counter, _ = counted(stepped, name)
        assert counter.flops == (4 + 4) * first + (4 + 6) * sum(layers) + (3 + 6) * last

    def test_r1(self, name: str) -> None:
        """One pass differentiates penalty and scores of real samples: 4 products for each layer. Fake samples are
        scored and differentiated: 3, except with respect to the samples.
        """
        first, *layers, last = flops_of_layers(name)
        counter, _ = counted(functools.partial(stepped, penalty=r1_penalty), name)
        assert counter.flops == (4 + 2) * first + (4 + 3) * (sum(layers) + last) - last

    def test_r1_and_r2(self, name: str) -> None:
        *layers, last = flops_of_layers(name)
        counter, _ = counted(functools.partial(stepped, penalty=r1_r2_penalty), name)
        assert counter.flops == 8 * sum(layers) + 6 * last

    def test_published_r1_and_r2(self, name: str) -> None:
        """R3GAN's published update, 12 products for each layer, beside ours with 8."""
        critic, real, fake = critic_and_samples(name)
        ours = count(stepped(name, penalty=r1_r2_penalty)).flops
        assert name == "tiny" or ours <= 0.74 * count(lambda: r3gan_update(critic, real, fake)).flops


class TestDeadWork:
    """No product is spent on a gradient that is zero, or that reaches only the samples."""

    @pytest.mark.parametrize(
        "layer",
        [
            nn.ReLU(),
            nn.ReLU(inplace=True),
            nn.ReLU6(),
            nn.LeakyReLU(0.3),
            nn.Hardtanh(),
            nn.PReLU(),
            nn.PReLU(4),
            nn.RReLU().eval(),
            nn.RReLU(),
            nn.Threshold(0.1, 0.2),
            nn.Hardshrink(),
            nn.Softshrink(),
            nn.MaxPool2d(2),
            nn.AvgPool2d(2),
            nn.AdaptiveMaxPool2d(3),
            nn.AdaptiveAvgPool2d(3),
            nn.AdaptiveAvgPool2d(1),
            nn.FractionalMaxPool2d(2, 3),
            nn.ReflectionPad2d(1),
            nn.ReplicationPad2d(1),
            nn.ConstantPad2d(1, 0.5),
            nn.Dropout(0.3),
            nn.PixelUnshuffle(2),
            nn.Upsample(scale_factor=2),
        ],
        ids=str,
    )
    def test_no_zeros_travel(self, layer: nn.Module) -> None:
        """The first layer costs most, so a gradient of zeros with respect to its output would show."""
        critic = nn.Sequential(nn.Conv2d(32, 4, 3, bias=False), layer, nn.Flatten(), nn.LazyLinear(1))
        shape = (2, 32, 8, 8)
        forward = flops(lambda critic, real, fake, t: critic(real).sum(), critic, shape) / 2
        assert flops(gradient_penalty, critic, shape) <= 4.2 * forward

    def test_points_receive_nothing_from_a_curved_critic(self) -> None:
        critic, shape = nn.Sequential(nn.Linear(512, 8), nn.Tanh(), nn.Linear(8, 1)), (64, 512)
        first = 2 * 64 * 512 * 8
        assert flops(gradient_penalty, critic, shape) == pytest.approx(5 * first, rel=0.05)
        assert flops(reference.gradient_penalty, critic, shape) == pytest.approx(6 * first, rel=0.05)

    def test_layers_above_the_last_curvature(self) -> None:
        """They have no second derivative of their own: 4 products, as in a piecewise-linear critic. The layer below
        has 6, of which the one for the points is cut.
        """
        critic = nn.Sequential(nn.Linear(48, 40), nn.Tanh(), *mlp(40, 64, 2))
        forward = [2 * 16 * layer.weight.numel() for layer in critic if isinstance(layer, nn.Linear)]
        first, *above, last = forward
        assert flops(gradient_penalty, critic, (16, 48)) == 5 * first + 4 * sum(above) + 3 * last

    def test_operators_that_no_mode_intercepts_are_cut_too(self) -> None:
        aten, critic, shape = torch.ops.aten, mlp(64, 64, 4), (32, 64)

        def same(x: Tensor) -> Tensor:
            for layer in critic[:-1:2]:
                x = aten.leaky_relu(aten.linear(x, layer.weight, layer.bias), 0.2)
            return critic[-1](x)

        def penalised(penalty: Penalty) -> int:
            return flops(lambda critic, *points, t: penalty(same, *points, t=t), critic, shape)

        assert penalised(gradient_penalty) <= 0.7 * penalised(reference.gradient_penalty)


#: Dispatched operators, including views.
OPERATORS = {
    # critic: (penalty with its backward, step)
    "toy": (60, 154),
    "tabular": (45, 123),
    "wide": (60, 154),
    "dcgan": (52, 126),
    "mnist": (52, 126),
    "tiny": (30, 92),
}


@of_this_torch
@pytest.mark.parametrize("name", OPERATORS)
class TestOperators:
    def test_penalty(self, name: str) -> None:
        counter, _ = counted(penalised, name)
        assert counter.operators <= OPERATORS[name][0]

    def test_step(self, name: str) -> None:
        counter, _ = counted(stepped, name)
        assert counter.operators <= OPERATORS[name][1]


#: Above the bytes at the start. Without convolutions, since oneDNN's memory depends on the processor.
PEAK_BYTES = {
    # critic: (penalty with its backward, step)
    "toy": (1_588_232, 5_249_040),
    "tabular": (1_906_840, 5_296_016),
    "wide": (1_585_672, 9_195_536),
    "tiny": (1_080, 3_216),
}


class TestPeakMemory:
    @of_this_torch
    @pytest.mark.parametrize("name", PEAK_BYTES)
    def test_penalty(self, name: str) -> None:
        _, peak_bytes = counted(penalised, name)
        assert peak_bytes <= PEAK_BYTES[name][0]

    @of_this_torch
    @pytest.mark.parametrize("name", PEAK_BYTES)
    def test_step(self, name: str) -> None:
        _, peak_bytes = counted(stepped, name)
        assert peak_bytes <= PEAK_BYTES[name][1]

    @pytest.mark.parametrize("name", FOR_CPU)
    def test_penalty_against_the_textbook(self, name: str) -> None:
        make, shape = CRITICS[name]
        critic = make()
        ours, textbook = (
            peak_memory(penalty, critic, shape) for penalty in (gradient_penalty, reference.gradient_penalty)
        )
        assert ours <= 0.7 * textbook

    @pytest.mark.parametrize(
        "critic",
        [
            mlp(256, 256, 4, inplace=False),
            nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256), nn.LayerNorm(256), nn.Linear(256, 1)),
            nn.Sequential(nn.Linear(256, 256), nn.PReLU(), nn.Linear(256, 1)),
        ],
        ids=["mlp", "curved", "prelu"],
    )
    def test_penalty_never_takes_more_than_the_textbook(self, critic: nn.Module) -> None:
        ours, textbook = (
            peak_memory(penalty, critic, (2048, 256)) for penalty in (gradient_penalty, reference.gradient_penalty)
        )
        assert ours <= textbook

    def test_layers_above_the_last_curvature_keep_no_inputs(self) -> None:
        """Each input has 2 MiB. The curved layer keeps a few tensors of this size, whatever is above it."""
        shape, lasting = (2048, 256), 2048 * 256 * 4
        piecewise, curved = mlp(256, 256, 8), mlp(256, 256, 8)
        curved[1] = nn.Tanh()
        more = peak_memory(gradient_penalty, curved, shape) - peak_memory(gradient_penalty, piecewise, shape)
        assert more <= 3 * lasting

    @pytest.mark.parametrize("name", FOR_CPU)  # in "tiny" the counters of skipped updates show
    def test_step_against_the_textbook(self, name: str) -> None:
        _, peak_bytes = counted(stepped, name)
        assert peak_bytes <= 0.9 * peak_bytes_of(stepped(name, textbook=True), torch.device("cpu"))


#: Dispatched operators of a penalty with its backward. The textbook has 1.4 (tanh) to 5 times as many (GroupNorm).
CURVED_OPERATORS = {
    "DCGAN-32, InstanceNorm": 76,
    "DCGAN-32, GroupNorm(8)": 84,
    "DCGAN-32, GroupNorm(1)": 84,
    "DCGAN-32, SiLU": 63,
    "ResNet-32, LayerNorm": 240,
    "MLP, LayerNorm": 117,
    "MLP, RMSNorm": 109,
    "MLP, SiLU": 86,
    "MLP, GELU": 86,
    "MLP, tanh": 96,
    "Transformer of 64 tokens": 556,
}


class TestCurvedCritics:
    @of_this_torch
    @pytest.mark.parametrize("name", CURVED_OPERATORS)
    def test_operators(self, name: str) -> None:
        make, shape = CURVED[name]
        critic = make()
        small = (2, *shape[1:])
        assert count(lambda: update(gradient_penalty, critic, small)).operators <= CURVED_OPERATORS[name]

    @pytest.mark.parametrize("name", CURVED)
    def test_products(self, name: str) -> None:
        """6 for each layer, without the one for the points of the first layer."""
        make, shape = CURVED[name]
        critic, small = make(), (2, *shape[1:])
        ours, textbook = (flops(p, critic, small) for p in (gradient_penalty, reference.gradient_penalty))
        assert ours < textbook

    @pytest.mark.parametrize("name", CURVED)
    def test_peak_memory(self, name: str) -> None:
        """The transformer peaks in the double backward of PyTorch's softmax, as the textbook's does. A row of a
        normalisation keeps three numbers, PyTorch's two: there, 4 normalisations of 16 x 64 rows.
        """
        make, (batch, *sample) = CURVED[name]
        critic, shape = make(), (min(batch, 16) if len(sample) > 1 else batch, *sample)
        ours, textbook = (peak_memory(p, critic, shape) for p in (gradient_penalty, reference.gradient_penalty))
        third_numbers = 4 * 16 * 64 * 4 if "Transformer" in name else 0
        assert ours <= (0.8 if "Norm" in name else 1.0) * textbook + third_numbers


_SAVE_THE_OUTPUT = (nn.Tanh, nn.Sigmoid)
_SAVE_THE_INPUT = (nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Mish, nn.LogSigmoid, nn.Softsign)
CURVED_LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.LayerNorm(512), (256, 512)),
    (nn.RMSNorm(512), (256, 512)),
    (nn.GroupNorm(4, 32), (32, 32, 16, 16)),
    (nn.InstanceNorm2d(32, affine=True), (32, 32, 16, 16)),
    (nn.GELU("tanh"), (256, 512)),
    *((activation(), (256, 512)) for activation in (*_SAVE_THE_OUTPUT, *_SAVE_THE_INPUT)),
]


class TestPasses:
    """Bytes that are read and written for one curved layer, in tensors of the size of its input."""

    @pytest.mark.parametrize(("layer", "shape"), CURVED_LAYERS, ids=str)
    def test_each_derivative_is_one_pass(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        """The value reads x and writes y. Its derivative reads what was saved and a gradient, and writes one. The
        second derivative reads these two and a direction, and writes the gradients with respect to both.
        """
        x, gradient, direction = torch.randn(3, *shape).unbind()
        x.requires_grad_()
        gradient.requires_grad_()
        passes, results = [], []

        def counting(function: Callable[[], object]) -> None:
            counter = count(lambda: results.append(function()))
            passes.append(counter.bytes / x.nbytes)

        with CriticLayers():
            counting(lambda: layer(x))
        counting(lambda: torch.autograd.grad(results[0], x, gradient, create_graph=True)[0])
        saved = results[0] if isinstance(layer, _SAVE_THE_OUTPUT) else x
        counting(lambda: torch.autograd.grad(results[1], (gradient, saved), direction))
        # Statistics of rows, parameters and their gradients are a few percent more.
        assert passes == pytest.approx([2, 3, 5], rel=0.05)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
class TestLaunches:
    """The bounds are derived from the source."""

    @pytest.fixture(autouse=True)
    def _profiler_sees_kernels(self) -> None:
        x = torch.zeros(1, device="cuda")
        if launches_of(lambda: x.add_(1)) != 1:
            pytest.skip("the profiler does not see the GPU's kernels here")

    def test_interpolate(self) -> None:
        real, fake = torch.randn(2, 64, 3, 32, 32, device="cuda")
        t = torch.rand(64, device="cuda")
        assert launches_of(lambda: interpolate(real, fake, t)) == 1

    @pytest.mark.parametrize(
        ("shape", "launches"),
        [
            ((8, 2), 1),  # one block does all rows, and writes the penalty
            ((64, 3072), 2),  # the sum over the blocks is a launch of its own
            ((2, 300_000), 2),  # so is the sum over the segments of a row
        ],
    )
    def test_gradient_norm_penalty(self, shape: tuple[int, ...], launches: int) -> None:
        gradient, formula = torch.randn(shape, device="cuda"), (10.0, 1.0, 2.0, False)
        penalty, norms = torch.ops.wgan_fast.gradient_norm_penalty(gradient, *formula)
        assert launches_of(lambda: torch.ops.wgan_fast.gradient_norm_penalty(gradient, *formula)) == launches
        backward = torch.ops.wgan_fast.gradient_norm_penalty_backward
        assert launches_of(lambda: backward(penalty, gradient, norms, *formula)) == 1

    def test_piecewise_linear(self) -> None:
        x = torch.randn(64, 512, device="cuda")
        _, mask = torch.ops.wgan_fast.piecewise_linear(x, 0.2, 0.0, float("inf"))
        assert launches_of(lambda: torch.ops.wgan_fast.piecewise_linear(x, 0.2, 0.0, float("inf"))) == 1
        assert launches_of(lambda: torch.ops.wgan_fast.apply_mask(x, mask, 0.2, x.stride())) == 1

    def test_weights_of_a_critic(self) -> None:
        weights = [torch.randn(100, 20, device="cuda", requires_grad=True) for _ in range(60)]
        assert launches_of(lambda: clip_weights_(weights)) == 1
        gaps = [torch.randn(100, 40, device="cuda")[:, ::2] for _ in range(60)]
        assert launches_of(lambda: clip_weights_(gaps)) == 2  # a launch holds 32 tensors with gaps
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        kernels = kernels_of(RMSprop(weights, clip=0.01).step)
        assert len(kernels) == 2, kernels  # the update, and the count of steps

    @pytest.mark.parametrize("name", ["toy", "tabular", "wide", "tiny"])
    def test_penalty(self, name: str) -> None:
        """A third of the operators are views; a split-K product launches twice. Convolutions are left out, because
        cuDNN chooses their number of launches.
        """
        launches = launches_of(penalised(name, device="cuda"))
        assert launches <= OPERATORS[name][0]
        assert launches <= 0.7 * launches_of(penalised(name, textbook=True, device="cuda"))
