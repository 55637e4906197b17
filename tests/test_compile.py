"""A penalty in compiled code: right numbers, or an error with a remedy."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from wgan_fast import dragan_penalty, gradient_penalty, r1_penalty, reference, wgan_div_penalty

pytestmark = [  # PyTorch's own
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]
BACKENDS = ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _forget_what_was_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make_critic(activation: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), activation or nn.LeakyReLU(0.2), nn.Linear(5, 1)).double()


@pytest.fixture
def batches() -> tuple[Tensor, Tensor, Tensor]:
    real, fake = torch.randn(2, 6, 4, dtype=torch.float64)
    return real, fake, torch.rand(6, dtype=torch.float64)


def assert_textbook(penalty: Tensor, critic: nn.Module, batches: tuple[Tensor, Tensor, Tensor]) -> None:
    real, fake, t = batches
    expected = reference.gradient_penalty(critic, real, fake, t=t)
    torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=0)
    results = []
    for value in (penalty, expected):
        critic.zero_grad()
        value.backward()
        results.append([parameter.grad for parameter in critic.parameters()])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
class TestCompiledFunction:
    def test_with_a_penalty_inside(self, backend: str, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        critic = make_critic()

        @torch.compile(backend=backend)
        def loss(real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
            return 1.0 * gradient_penalty(critic, 2 * real - real, fake, t=t)

        for _ in range(2):
            assert_textbook(loss(*batches), critic, batches)

    def test_whole_update(self, backend: str, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        """The backward pass of the penalty is inside the compiled function, too."""
        real, fake, t = batches
        critic = make_critic()
        textbook = make_critic()
        textbook.load_state_dict(critic.state_dict())

        def update(penalty: Callable[..., Tensor], critic: nn.Module) -> None:
            (critic(fake).mean() - critic(real).mean() + penalty(critic, real, fake, t=t)).backward()

        torch.compile(update, backend=backend)(gradient_penalty, critic)
        update(reference.gradient_penalty, textbook)
        for parameter, expected in zip(critic.parameters(), textbook.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-10, atol=1e-12)

    def test_fullgraph_is_refused_in_words(self, backend: str, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        critic = make_critic()
        compiled = torch.compile(
            lambda real, fake: gradient_penalty(critic, real, fake), backend=backend, fullgraph=True
        )
        with pytest.raises(torch._dynamo.exc.Unsupported, match="fullgraph=True forbids"):
            compiled(*batches[:2])


def whole(critic: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    return torch.compile(critic, backend=backend)


def full_graph(critic: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    return torch.compile(critic, backend=backend, fullgraph=True)


def in_place(critic: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    critic.compile(backend=backend)
    return critic


def function(critic: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    return torch.compile(lambda x: critic(x), backend=backend)


def part(critic: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    body = torch.compile(lambda x: critic[1](critic[0](x)), backend=backend)
    return lambda x: critic[2](body(x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("compile_critic", [whole, full_graph, in_place, function, part])
@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2, inplace=True), nn.Tanh()], ids=["piecewise", "curved"])
def test_compiled_critic(
    compile_critic: Callable[..., Callable[[Tensor], Tensor]],
    activation: nn.Module,
    backend: str,
    batches: tuple[Tensor, Tensor, Tensor],
) -> None:
    """The penalty comes first, comes after other calls, and is followed by other calls."""
    real, fake, t = batches
    critic = make_critic(activation)
    compiled = compile_critic(critic, backend)
    for _ in range(2):
        penalty = gradient_penalty(compiled, real, fake, t=t)
        eager = nn.Sequential(*critic)
        assert_textbook(penalty, eager, batches)
        critic.zero_grad()
        compiled(real).sum().backward()
        torch.testing.assert_close(compiled(real), eager(real))


class TestTracing:
    """make_fx over a whole update: the graph is right for other inputs than the traced ones."""

    @staticmethod
    def update(critic: nn.Module) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        parameters = list(critic.parameters())[:-1]

        def update(real: Tensor, fake: Tensor, t: Tensor) -> tuple[Tensor, ...]:
            penalty = gradient_penalty(critic, real, fake, t=t)
            return penalty, *torch.autograd.grad(penalty, parameters)

        return update

    @pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2, inplace=True), nn.Tanh(), nn.PReLU()], ids=str)
    @pytest.mark.parametrize("mode", ["real", "fake"])
    def test_make_fx(self, activation: nn.Module, mode: str, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        critic = make_critic(activation.double())
        options = {"tracing_mode": mode, "_allow_non_fake_inputs": True} if mode == "fake" else {"tracing_mode": mode}
        graph = make_fx(self.update(critic), **options)(*batches)
        real, fake = torch.randn(2, 6, 4, dtype=torch.float64)
        t = torch.rand(6, dtype=torch.float64)
        expected = reference.gradient_penalty(critic, real, fake, t=t)
        gradients = torch.autograd.grad(expected, list(critic.parameters())[:-1])
        for actual, wanted in zip(graph(real, fake, t), (expected, *gradients), strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-12)

    @pytest.mark.slow
    def test_compiling_the_graph(self, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        update = self.update(make_critic())
        compiled = torch.compile(make_fx(update)(*batches))
        torch.testing.assert_close(compiled(*batches), update(*batches), rtol=1e-10, atol=1e-12)


class TestTransforms:
    """torch.func transforms use plain PyTorch operations."""

    @pytest.mark.parametrize("penalty", [gradient_penalty, wgan_div_penalty])
    def test_grad_of_a_functional_call(
        self, penalty: Callable[..., Tensor], batches: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        real, fake, t = batches
        critic = make_critic()
        parameters = {name: parameter.detach() for name, parameter in critic.named_parameters()}

        def loss(parameters: dict[str, Tensor]) -> Tensor:
            return penalty(lambda x: torch.func.functional_call(critic, parameters, (x,)), real, fake, t=t)

        gradients = torch.func.grad(loss)(parameters)
        expected = penalty(critic, real, fake, t=t)
        expected.backward()
        for name, parameter in critic.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-10, atol=1e-12)

    def test_vmap_over_critics(self, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        real, fake, t = batches
        critics = [make_critic() for _ in range(3)]
        parameters, buffers = torch.func.stack_module_state(critics)

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            def critic(x: Tensor) -> Tensor:
                return torch.func.functional_call(critics[0], (parameters, buffers), (x,))

            return r1_penalty(critic, real) + gradient_penalty(critic, real, fake, t=t)

        values = torch.func.vmap(loss)(parameters, buffers)
        for value, critic in zip(values, critics, strict=True):
            expected = r1_penalty(critic, real) + gradient_penalty(critic, real, fake, t=t)
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)


def test_python_functions_are_not_differentiated_twice_by_the_compiler(batches: tuple[Tensor, Tensor, Tensor]) -> None:
    """A Python autograd.Function in a compiled critic: differentiated twice inside Dynamo its gradients were wrong."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 2 * x * grad

    critic = make_critic()

    def scores(x: Tensor) -> Tensor:
        return Square.apply(F.leaky_relu(critic[0](x), 0.2)).sum(1)

    def exact(x: Tensor) -> Tensor:
        return F.leaky_relu(critic[0](x), 0.2).square().sum(1)

    real, fake, t = batches
    expected = reference.gradient_penalty(exact, real, fake, t=t)
    weights = [critic[0].weight, critic[0].bias]
    gradients = torch.autograd.grad(expected, weights)
    for compiled in (
        lambda: gradient_penalty(torch.compile(scores, backend="aot_eager"), real, fake, t=t),
        lambda: torch.compile(lambda: gradient_penalty(scores, real, fake, t=t), backend="aot_eager")(),
    ):
        penalty = compiled()
        torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=0)
        torch.testing.assert_close(torch.autograd.grad(penalty, weights), gradients, rtol=1e-10, atol=1e-12)


def test_dragan_inside_a_compiled_function() -> None:
    critic, real = make_critic(), torch.randn(6, 4, dtype=torch.float64)
    generator = torch.Generator()
    compiled = torch.compile(lambda real: dragan_penalty(critic, real, generator=generator), backend="aot_eager")
    value = compiled(real)
    assert value == dragan_penalty(critic, real, generator=generator.manual_seed(generator.initial_seed()))


def test_partly_compiled_critic_in_a_new_function_each_time() -> None:
    """The compiled part is found once, not in every call."""
    critic, calls = make_critic(), []
    body = torch.compile(lambda x: critic[1](critic[0](x)), backend="aot_eager")

    def scores(x: Tensor) -> Tensor:
        calls.append(1)
        return critic[2](body(x))

    for _ in range(3):
        r1_penalty(lambda x: scores(x), torch.randn(6, 4, dtype=torch.float64)).backward()
    assert len(calls) == 4
