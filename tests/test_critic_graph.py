"""CriticGraph: which critics are curved, and which saved inputs can be freed."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from critics import CRITICS
from wgan_fast import gradient_penalty, reference
from wgan_fast._critic.layers import CriticLayers
from wgan_fast._library import extension

ones = functools.partial(torch.ones, dtype=torch.float64)


def graph_of(critic: Callable[[Tensor], Tensor], points: Tensor) -> Any:
    graph = extension.CriticGraph([points])
    with CriticLayers(graph):
        scores = critic(points)
    graph.close(scores, True)
    return graph


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + x.flip(1) - 2 * x + 1,
    "rsub": lambda x: 1 - x,
    "neg": lambda x: -x,
    "mul": lambda x: x * ones(4, 8, 6, 6).cumsum(1) * 3,
    "div": lambda x: x / 3 / (2 * ones(8, 1, 1)),
    "cat": lambda x: torch.cat([x, x.roll(1, 0)], 1),
    "stack": lambda x: torch.stack([x, 2 * x]),
    "shapes": lambda x: x.unsqueeze(1).squeeze(1).permute(0, 2, 3, 1).transpose(1, 2).reshape(4, -1).view(4, 8, -1).mT,
    "squeeze": lambda x: x[:, :1].squeeze().unsqueeze(0).squeeze((0,)),
    "select": lambda x: x[:, 0, 1:5:2] + x[:, 1, torch.tensor([0, 3])],
    "index": lambda x: x.index_select(1, torch.tensor([0, 2])).gather(1, torch.ones(4, 1, 6, 6, dtype=torch.long)),
    "split": lambda x: x.chunk(2, 1)[0] + x.split([4, 4], 1)[1] + x.unsafe_split(4, 1)[1],
    "unbind": lambda x: x.unbind(1)[0],
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1).repeat(1, 2, 1, 1).clone(),
    "mean": lambda x: x.mean((2, 3)) + x.sum((1, 2, 3))[:, None] + x.sum() + x.mean(),
    "cumsum": lambda x: x.cumsum(1).diagonal(dim1=2, dim2=3),
    "mask": lambda x: x.masked_fill(x > 0.5, 0.1).tril() + torch.where(x > 0, x, 0.2 * x).triu(),
    "clamp": lambda x: x.clamp(-0.3, 0.4) + x.clamp(min=0.1) + x.clamp(max=0.2) + x.clamp(min=0 * ones(6)),
    "clamp min": lambda x: torch.clamp_min(x, 0.1) + torch.clamp_max(x, 0.3),
    "maximum": lambda x: torch.maximum(x, x.flip(1)) + torch.minimum(x, 2 * x),
    "maxout": lambda x: x.view(4, 2, 4, 6, 6).max(1)[0] + x.view(4, 2, 4, 6, 6).min(1)[0],
    "amax": lambda x: x.amax(1) + x.amin((1,)) + x.max() + x.min(),
    "sort": lambda x: x.sort(1)[0][:, :2] + x.topk(2, 1)[0] + x.median(1, keepdim=True)[0] + x.median(),
    "unfold": lambda x: F.unfold(x, 2)[:, :4, :4] + x.unfold(2, 3, 1)[:, :4, 0, :4, 0],
    "shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "upsample": lambda x: F.interpolate(x, scale_factor=2) + F.interpolate(x, scale_factor=2, mode="bilinear"),
    "upsample 1d": lambda x: F.interpolate(x[:, :, 0], scale_factor=2) + F.interpolate(x[:, :, 1], 12, mode="linear"),
    "upsample 3d": lambda x: F.interpolate(x[:, None], scale_factor=2),
    "as_strided": lambda x: x.as_strided((4, 5), (x.stride(0), 1)),
    "pad": lambda x: F.pad(x, (1, 1), value=0.5),
    "dropout": lambda x: F.dropout(x, 0.3),
    "matmul": lambda x: (x @ ones(6, 3)).flatten(2) @ ones(4, 18, 2) @ ones(2),
    "einsum": lambda x: torch.einsum("bchw,cd->bdhw", x, ones(8, 3)),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0], x[:, 1], ones(4, 6, 6)) + torch.addmm(x[0, 0], x[0, 1], ones(6, 6)),
    "type": lambda x: x.float().double(),
}  # fmt: skip


PIECEWISE_LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 0.3),
    "threshold, in place": lambda x: F.threshold(x, 0.1, 0.3, inplace=True),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "prelu": lambda x: F.prelu(x, x.new_tensor([0.3])),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.4),
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "maxout": lambda x: x.view(4, 2, 4, 6, 6).amax(1),
    "max pool": lambda x: F.max_pool2d(x, 2),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "adaptive max pool": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive average pool": lambda x: F.adaptive_avg_pool2d(x, 4),
    "fractional max pool": lambda x: F.fractional_max_pool2d(x, 2, 3, _random_samples=0.3 * ones(4, 8, 2)),
    "pools in 3 dimensions": lambda x: F.avg_pool3d(F.max_pool3d(x, 1), 2),
    "reflection": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "replication": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
}


class TestInputsAreLetGo:
    @pytest.mark.parametrize("name", LINEAR)
    def test_linear_operators_are_known(self, name: str) -> None:
        """Between two layers each operator keeps the critic piecewise linear, and no freed input is needed."""
        torch.manual_seed(0)
        first, operator = nn.Conv2d(3, 8, 1, dtype=torch.float64), LINEAR[name]
        points = torch.randn(4, 3, 6, 6, dtype=torch.float64)
        last = nn.Linear(operator(first(points)).flatten(1).shape[1] if name != "stack" else 288, 1).double()

        def critic(x: Tensor) -> Tensor:
            torch.manual_seed(1)  # of the dropout
            hidden = operator(first(x)).to(torch.float64)
            return last((hidden.sum(0) if name == "stack" else hidden).reshape(-1, last.in_features))

        assert not graph_of(critic, points.clone().requires_grad_()).curved
        parameters = [first.weight, first.bias, last.weight, last.bias]
        penalties = (gradient_penalty, reference.gradient_penalty)
        ours, textbook = (
            torch.autograd.grad(penalty(critic, points, points, t=torch.rand(4)), parameters, allow_unused=True)
            for penalty in penalties
        )
        for gradient, expected in zip(ours, textbook, strict=True):
            assert (gradient is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(gradient, expected, rtol=1e-6 if name == "type" else 1e-10, atol=1e-10)

    @pytest.mark.parametrize("name", CRITICS)
    def test_curvature_is_noticed(self, name: str) -> None:
        make, shape = CRITICS[name]
        critic, points = make().double(), torch.randn(6, *shape, dtype=torch.float64, requires_grad=True)
        linear = {
            *("linear", "mlp", "prelu", "max pool", "residual", "weight norm", "spectral norm", "dcgan", "resnet"),
            *("one dimension", "three dimensions", "adaptive pool", "spectral convolution", "modulated", "no bias"),
            "batch norm",  # in eval mode
            *("hypernetwork", "linear convolutions", "dynamic filter", "checkpointed", "ensemble"),
        }
        assert graph_of(critic, points).curved == (name not in linear)

    @pytest.mark.parametrize(
        "function",
        [
            *(torch.tanh, torch.exp, F.silu, F.elu, F.hardswish),
            *(lambda x: x * x, lambda x: x / (1 + x.abs()), lambda x: x @ x.mT, lambda x: x.softmax(1)),
        ],
    )
    def test_curved_functions(self, function: Callable[[Tensor], Tensor]) -> None:
        assert graph_of(lambda x: function(2 * x).sum(1), torch.randn(4, 4, requires_grad=True)).curved

    def test_what_a_critic_kept_from_a_penalty(self) -> None:
        """A graph whose inputs were freed cannot be differentiated; the error gives the remedy."""
        kept: list[Tensor] = []
        critic = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        critic[1].register_forward_hook(lambda module, inputs, output: kept.append(output))
        gradient_penalty(critic, *torch.randn(2, 5, 4)).backward()
        with pytest.raises(RuntimeError, match="Call the critic once more, outside of the penalty"):
            kept[0].sum().backward()
        critic(torch.randn(5, 4))
        kept[1].sum().backward()

    def test_weights_changed_before_the_derivative(self) -> None:
        critic = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
        penalty = gradient_penalty(critic, *torch.randn(2, 5, 1, 3, 3))
        with torch.no_grad():
            critic[0].weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            penalty.backward()


def results(penalty: Callable[..., Tensor], critic: Callable[[Tensor], Tensor], leaves: list[Tensor]) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    real, fake = torch.randn(2, 6, 12, dtype=torch.float64, generator=generator)
    value = penalty(critic, real, fake, t=torch.rand(6, dtype=torch.float64, generator=generator))
    for leaf in leaves:
        leaf.grad = None
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


def assert_textbook(critic: Callable[[Tensor], Tensor], leaves: list[Tensor]) -> None:
    ours, textbook = (results(penalty, critic, leaves) for penalty in (gradient_penalty, reference.gradient_penalty))
    torch.testing.assert_close(ours, textbook, rtol=1e-10, atol=1e-12)


class TestUnusualGraphs:
    @pytest.fixture
    def layers(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return nn.Linear(12, 8).double(), nn.Linear(12, 1).double(), nn.Linear(8, 1).double()

    def test_hooks_that_bring_in_the_sample(self, layers: tuple[nn.Module, ...]) -> None:
        first, _, head = layers

        def on_tensor(x: Tensor) -> Tensor:
            hidden = first(x)
            hidden.register_hook(lambda grad: grad * hidden)
            return head(F.relu(hidden))

        def on_node(x: Tensor) -> Tensor:
            hidden = first(x)
            output = F.relu(hidden)
            output.grad_fn.register_hook(lambda grads, _: (grads[0] * hidden,))
            return head(output)

        def on_points(x: Tensor) -> Tensor:
            hidden = first(x)
            x.register_hook(lambda grad: grad * hidden.sum(1, keepdim=True))
            return head(F.relu(hidden))

        def with_a_sign(x: Tensor) -> Tensor:
            hidden = F.relu(first(x))
            hidden.register_hook(lambda grad: grad * (2 + head.weight.sgn().sum()))
            return head(hidden)

        for critic in (on_tensor, on_node, on_points, with_a_sign):
            assert_textbook(critic, [first.weight, first.bias, head.weight, head.bias])

    def test_hooks_get_zeros(self, layers: tuple[nn.Module, ...]) -> None:
        """Also where double backward has nothing to send: through a normalisation with running statistics."""
        first, _, head = layers
        norm = nn.BatchNorm1d(8).double().eval()
        scale = torch.ones(8, dtype=torch.float64, requires_grad=True)

        def on_tensor(x: Tensor) -> Tensor:
            hidden = first(x)
            hidden.register_hook(lambda grad: grad * 0.5)
            return head(F.leaky_relu(norm(hidden), 0.2))

        def on_node(x: Tensor) -> Tensor:
            hidden = first(x)
            hidden.grad_fn.register_hook(lambda grads, _: tuple(g if g is None else 0.5 * g for g in grads))
            hidden.grad_fn.register_prehook(lambda grads: (grads[0] * 2,))
            return head(F.leaky_relu(norm(hidden * 1.0), 0.2))

        def on_one_of_several(x: Tensor) -> Tensor:
            parts = first(x).chunk(2, 1)
            parts[0].register_hook(lambda grad: grad * 0.5)
            return head(F.leaky_relu(norm(torch.cat([parts[0], 2 * parts[1]], 1)), 0.2))

        def off_the_path(x: Tensor) -> Tensor:
            doubled = 2 * scale
            doubled.register_hook(lambda grad: grad * 0.5)
            return head(F.leaky_relu(norm(first(x) + doubled), 0.2))

        def of_no_zero(x: Tensor) -> Tensor:
            hidden = first(x)
            hidden.register_hook(lambda grad: grad + 0.1)
            return head(F.relu(hidden).abs())

        for critic in (on_tensor, on_node, on_one_of_several, off_the_path, of_no_zero):
            leaves = [first.weight, first.bias, norm.weight, norm.bias, head.weight, head.bias, scale]
            assert_textbook(critic, leaves)

    @pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.BatchNorm1d(8).eval(), nn.Identity()], ids=str)
    @pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), nn.Softshrink(), nn.Tanh()], ids=str)
    def test_hooks_of_modules(self, layers: tuple[nn.Module, ...], norm: nn.Module, activation: nn.Module) -> None:
        critic = nn.Sequential(layers[0], copy.deepcopy(norm).double(), copy.deepcopy(activation), layers[2])
        for module in critic[:3]:
            module.register_full_backward_hook(lambda module, grad_input, grad_output: (0.5 * grad_input[0],))
            module.register_full_backward_pre_hook(lambda module, grad_output: (3 * grad_output[0],))
        assert_textbook(critic, list(critic.parameters()))

    def test_scores_kept_with_their_points(self, layers: tuple[nn.Module, ...]) -> None:
        """A later derivative with respect to the points is right, or refused where edges to them were cut."""
        first, skip, head = layers
        kept: list[Tensor] = []

        def penalise(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def critic(x: Tensor) -> Tensor:
                scores = head(activation(first(x))) + skip(x)
                kept[:] = [x, scores]
                return scores

            results(gradient_penalty, critic, [])
            return critic

        critic = penalise(F.relu)
        points, scores = kept
        again = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(scores.sum(), points)
        torch.testing.assert_close(gradient, torch.autograd.grad(critic(again).sum(), again)[0])
        penalise(torch.tanh)
        points, scores = kept
        with pytest.raises(RuntimeError, match="not have been used"):
            torch.autograd.grad(scores.sum(), points)

    def test_sparse_embedding(self) -> None:
        embedding, first, head = nn.Embedding(4, 8, sparse=True), nn.Linear(12, 8), nn.Linear(8, 1)
        optimizer = torch.optim.SparseAdam(embedding.parameters())
        labels = torch.arange(6) % 4
        gradient_penalty(lambda x: head(F.relu(first(x) + embedding(labels))), *torch.randn(2, 6, 12)).backward()
        optimizer.step()

    def test_gradients_inside_of_the_critic(self, layers: tuple[nn.Module, ...]) -> None:
        first, skip, head = layers

        def critic(x: Tensor) -> Tensor:
            scores = head(F.leaky_relu(first(x.detach()), 0.2)).sum()
            (weight,) = torch.autograd.grad(scores, first.weight, create_graph=True)
            return head(F.relu(F.linear(x, weight + first.weight))) + skip(x)

        # The inner bias, which only zeros of the inner derivative would reach, has None instead of them.
        assert_textbook(critic, [first.weight, head.weight, head.bias, skip.weight])

    def test_a_bias_that_changes_before_the_derivative(self) -> None:
        critic = nn.Sequential(nn.Linear(12, 8), nn.LeakyReLU(), nn.Linear(8, 1))
        penalty = gradient_penalty(critic, *torch.randn(2, 6, 12))
        with torch.no_grad():
            critic[0].bias.add_(1)
        penalty.backward()
        assert (critic[0].bias.grad == 0).all()

    def test_bias_for_each_sample(self, layers: tuple[nn.Module, ...]) -> None:
        first, _, head = layers
        bias = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
        assert_textbook(lambda x: head(torch.tanh(F.linear(x, first.weight, bias))), [first.weight, bias])

    def test_changes_of_views(self, layers: tuple[nn.Module, ...]) -> None:
        """Gradients are zero instead of None exactly where PyTorch's are: below an in-place activation on a view."""
        first, _, head = layers

        def product(x: Tensor) -> Tensor:
            hidden = first(x)
            hidden[:, :2] *= 2.0
            return head(hidden)

        def assignment(x: Tensor) -> Tensor:
            hidden = x.new_zeros(6, 8)
            hidden[:, :8] = first(x)
            return head(hidden)

        def activation(x: Tensor) -> Tensor:
            hidden = first(x)
            F.leaky_relu_(hidden[:, :2], 0.2)
            return head(hidden)

        for critic in (product, assignment, activation):
            assert_textbook(critic, [first.weight, first.bias, head.weight, head.bias])

    def test_layers_shared_and_tied(self) -> None:
        weight = torch.randn(12, 12, dtype=torch.float64, requires_grad=True)

        def critic(x: Tensor) -> Tensor:
            hidden = F.leaky_relu(F.linear(x, weight), 0.2)
            return F.relu(F.linear(F.linear(hidden, weight) + hidden, weight.T)).sum(1)

        assert_textbook(critic, [weight])

    def test_two_penalties_and_third_derivatives(self, layers: tuple[nn.Module, ...]) -> None:
        first, _, head = layers
        critic, samples = nn.Sequential(first, nn.PReLU().double(), head), torch.randn(6, 12, dtype=torch.float64)
        weights = [first.weight, critic[1].weight, head.weight]

        def meta(penalty: Callable[..., Tensor]) -> tuple[Tensor, ...]:
            t = torch.full((6,), 0.3, dtype=torch.float64)
            value = penalty(critic, samples, 2 * samples, t=t) + penalty(critic, samples, -samples, t=t)
            gradients = torch.autograd.grad(value, weights, create_graph=True)
            return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), weights)

        torch.testing.assert_close(meta(gradient_penalty), meta(reference.gradient_penalty), rtol=1e-9, atol=1e-10)

    @pytest.mark.parametrize(
        "layer",
        [
            nn.Conv2d(3, 2, 3, 2, 1),  # does not reach the last row and column
            nn.Conv2d(4, 2, 3, 2, groups=2),
        ],
        ids=str,
    )
    def test_derivatives_of_the_penalty_s_gradient(self, layer: nn.Module) -> None:
        """Of the second and third order with respect to the weights."""
        layer = copy.deepcopy(layer).double()
        critic, weights = nn.Sequential(layer, nn.SiLU(), nn.Flatten()), list(layer.parameters())
        samples, t = torch.randn(2, 4, layer.in_channels, 4, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)

        def derivatives(penalty: Callable[..., Tensor]) -> list[Tensor]:
            value, found = penalty(critic, *samples, t=t), []
            for _ in range(3):
                found += torch.autograd.grad(value, weights, create_graph=True)
                value = sum(gradient.square().sum() for gradient in found)
            return found

        torch.testing.assert_close(
            derivatives(gradient_penalty), derivatives(reference.gradient_penalty), rtol=1e-9, atol=1e-9
        )

    @pytest.mark.parametrize("name", PIECEWISE_LINEAR)
    def test_higher_derivatives(self, name: str) -> None:
        """The third and the fourth derivative through PyTorch's piecewise-linear operators."""
        operator, first = PIECEWISE_LINEAR[name], nn.Conv2d(3, 8, 1, dtype=torch.float64)
        points, t = torch.randn(2, 4, 3, 6, 6, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
        middle = nn.Linear(operator(first(points[0])).shape[-1], 5).double()
        weights = [first.weight, middle.weight, middle.bias]

        def critic(x: Tensor) -> Tensor:
            torch.manual_seed(1)
            return F.leaky_relu(middle(operator(first(x)))).flatten(1).sum(1)

        def derivatives(penalty: Callable[..., Tensor]) -> list[Tensor]:
            value, found = penalty(critic, *points, t=t), []
            for _ in range(3):
                gradients = torch.autograd.grad(value, weights, create_graph=True, materialize_grads=True)
                found += gradients
                value = sum(gradient.square().sum() for gradient in gradients)
            return found

        torch.testing.assert_close(
            derivatives(gradient_penalty), derivatives(reference.gradient_penalty), rtol=1e-9, atol=1e-9
        )
