"""The baselines: the textbook's critic step and training iteration, a functional step for the compiler, a jitted step
in JAX, an update with R1 or R1 + R2.

All of them take Adam's step; all but the last on the loss of WGAN-GP with weight 10.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rehearsal import REHEARSED
from wgan_fast import reference
from wgan_fast.bench import zero_centred_gradients

LEARNING_RATE, BETAS, EPSILON = 1e-4, (0.0, 0.9), 1e-8
Update = Callable[[], Any]


def adam(critic: nn.Module, **options: Any) -> torch.optim.Adam:
    return torch.optim.Adam(critic.parameters(), **{"lr": LEARNING_RATE, "betas": BETAS, "eps": EPSILON, **options})


def textbook(critic: nn.Module, real: Tensor, fake: Tensor, **options: Any) -> Update:
    """The usual code: eager, real and fake samples scored separately, PyTorch's default Adam."""
    optimizer = adam(critic, **options)

    return functools.partial(reference.critic_step, critic, optimizer, real, fake)


def joint(critic: nn.Module, real: Tensor, fake: Tensor) -> Update:
    """The strongest eager form: real and fake samples scored in one batch, PyTorch's fused Adam."""
    return functools.partial(_joint_step, critic, adam(critic, fused=True), real, fake)


def _joint_step(critic: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor) -> Tensor:
    optimizer.zero_grad()
    real_scores, fake_scores = critic(torch.cat([real, fake])).split([len(real), len(fake)])
    loss = fake_scores.mean() - real_scores.mean() + reference.gradient_penalty(critic, real, fake)
    loss.backward()
    optimizer.step()
    return loss.detach()


def shared(critic: nn.Module, real: Tensor, fake: Tensor, *, at_fake: bool) -> Update:
    """The strongest eager form of an update with R1, or with R1 + R2: each batch is scored once, its penalty uses the
    graph of the scores, and one backward differentiates all; the non-saturating loss, gamma 10.
    """
    return with_adam(critic, functools.partial(zero_centred_gradients, at_fake=at_fake), real, fake)


def with_adam(critic: nn.Module, gradients: Callable[..., Any], *batch: Tensor) -> Update:
    """An update: the gradients of a batch, and the step of the fused Adam."""
    optimizer = adam(critic, fused=True)

    def update() -> None:
        optimizer.zero_grad()
        gradients(critic, *batch)
        optimizer.step()

    return update


def captured(update: Update, warm_up: int = 3) -> Update:
    """The step captured as one CUDA graph, as in PyTorch's notes."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_up):
            update()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    return functools.partial(_replay, graph, update)


def _replay(graph: torch.cuda.CUDAGraph, update: Update) -> None:
    """``update`` owns the memory that the graph reads and writes."""
    graph.replay()


def textbook_iteration(
    generator: nn.Module,
    critic: nn.Module,
    batches: Sequence[Tensor],
    latent_shape: tuple[int, ...],
    critic_step: Callable[..., Any] = reference.critic_step,
    **options: Any,
) -> Update:
    """A critic step for each batch and one generator step, as in the usual code."""
    critic_adam, generator_adam = adam(critic, **options), adam(generator, **options)

    def iteration() -> Tensor:
        for real in batches:
            with torch.no_grad():
                fake = generator(torch.randn(latent_shape, device=real.device))
            critic_step(critic, critic_adam, real, fake)
        generator_adam.zero_grad()
        loss = -critic(generator(torch.randn(latent_shape, device=real.device))).mean()
        loss.backward()
        generator_adam.step()
        return loss.detach()

    return iteration


def joint_iteration(*arguments: Any, **options: Any) -> Update:
    """The same of the strongest eager form."""
    return textbook_iteration(*arguments, critic_step=_joint_step, **{"fused": True, **options})


def functional_compiled(critic: nn.Module, real: Tensor, fake: Tensor) -> Update:
    """Loss and gradients by ``torch.func``, the form that ``torch.compile`` accepts without a setting."""
    parameters = dict(critic.named_parameters())
    optimizer = adam(critic, fused=True)

    def loss(parameters: dict[str, Tensor], real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
        def scores(x: Tensor) -> Tensor:
            return torch.func.functional_call(critic, parameters, (x,))

        t = t.reshape(-1, *[1] * (real.dim() - 1))
        gradient = torch.func.grad(lambda x: scores(x).sum())(t * fake + (1 - t) * real)
        norms = gradient.flatten(1).norm(2, dim=1)
        return scores(fake).mean() - scores(real).mean() + 10.0 * ((norms - 1.0) ** 2).mean()

    gradients = torch.compile(torch.func.grad_and_value(loss), fullgraph=True, **_compiler(real))

    def update() -> Tensor:
        detached = {name: parameter.detach() for name, parameter in parameters.items()}
        found, value = gradients(detached, real, fake, torch.rand(len(real), device=real.device))
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        optimizer.step()
        return value

    return update


def traced_compiled(critic: nn.Module, real: Tensor, fake: Tensor) -> Update | None:
    """The joint form with its gradients in one compiled function, in which Dynamo follows ``torch.autograd.grad``; None
    if this PyTorch cannot. The penalised points are made outside: Dynamo does not let tensors that it made itself
    require a gradient.
    """
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        return None
    optimizer, parameters = adam(critic, fused=True), list(critic.parameters())

    def gradients(x: Tensor, real: Tensor, fake: Tensor) -> Any:
        real_scores, fake_scores = critic(torch.cat([real, fake])).split([len(real), len(fake)])
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        norms = gradient.flatten(1).norm(2, dim=1)
        loss = fake_scores.mean() - real_scores.mean() + 10.0 * ((norms - 1.0) ** 2).mean()
        return loss.detach(), torch.autograd.grad(loss, parameters)

    compiled = torch.compile(gradients, fullgraph=True, **_compiler(real))

    def update() -> Tensor:
        x = reference.interpolate(real, fake, torch.rand(len(real), device=real.device)).requires_grad_()
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            value, found = compiled(x, real, fake)
        for parameter, gradient in zip(parameters, found, strict=True):
            # The compiler chooses the strides of its results; fused Adam takes those of the parameter alone.
            same = gradient.stride() == parameter.stride()
            parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)
        optimizer.step()
        return value

    return update


def _compiler(real: Tensor) -> dict[str, Any]:
    """On CUDA in CUDA graphs."""
    return {"backend": "eager"} if REHEARSED else {"mode": "reduce-overhead" if real.is_cuda else None}


def jax_step(critic: nn.Module, real: Tensor, fake: Tensor, precision: str = "highest") -> Update | None:
    """The same step, jitted as a whole with donated buffers; None if JAX is missing or a layer has no translation.
    ``precision`` is that of products and convolutions: highest, or tensorfloat32, which is JAX's default on a GPU.
    """
    try:
        import jax
    except ImportError:
        return None
    forward = _jax_forward(critic)
    if forward is None:
        return None
    from jax import numpy as jnp

    platform = "gpu" if real.is_cuda else "cpu"
    try:
        device = jax.devices(platform)[0]
    except RuntimeError:
        return None

    def loss(parameters: Any, real: Any, fake: Any, t: Any) -> Any:
        t = t.reshape(-1, *[1] * (real.ndim - 1))
        gradient = jax.grad(lambda x: forward(parameters, x).sum())(t * fake + (1 - t) * real)
        norms = jnp.sqrt((gradient**2).reshape(len(gradient), -1).sum(1))
        wasserstein = forward(parameters, real).mean() - forward(parameters, fake).mean()
        return 10.0 * ((norms - 1.0) ** 2).mean() - wasserstein

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, real: Any, fake: Any) -> Any:
        parameters, first, second, count, key = state
        key, drawn = jax.random.split(key)
        value, gradients = jax.value_and_grad(loss)(parameters, real, fake, jax.random.uniform(drawn, (len(real),)))
        count = count + 1
        first = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, first, gradients)
        second = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, second, gradients)

        def moved(p: Any, m: Any, v: Any) -> Any:
            m, v = m / (1 - BETAS[0] ** count), v / (1 - BETAS[1] ** count)
            return p - LEARNING_RATE * m / (jnp.sqrt(v) + EPSILON)

        return (jax.tree.map(moved, parameters, first, second), first, second, count, key), value

    def on_device(tensor: Tensor, *order: int) -> Any:
        array = tensor.detach().cpu()
        return jax.device_put((array.permute(order).contiguous() if array.dim() == 4 else array).numpy(), device)

    parameters = [on_device(parameter, 2, 3, 1, 0) for parameter in critic.parameters()]
    zeros = [jnp.zeros_like(parameter) for parameter in parameters]
    state = jax.device_put((parameters, zeros, [z.copy() for z in zeros], jnp.zeros(()), jax.random.key(0)), device)
    samples = on_device(real, 0, 2, 3, 1), on_device(fake, 0, 2, 3, 1)

    value: Any = None

    def update() -> None:
        nonlocal state, value
        with jax.default_matmul_precision(precision):
            state, value = step(state, *samples)

    update.wait = lambda: value.block_until_ready()  # type: ignore[attr-defined]
    return update


def _jax_forward(critic: nn.Module) -> Callable[[Any, Any], Any] | None:
    """Images are channels-last, which is 8 % faster in XLA for DCGAN-32 on two cores (by hand)."""
    from jax import lax
    from jax import numpy as jnp

    layers = list(critic) if isinstance(critic, nn.Sequential) else [None]
    if not all(isinstance(layer, nn.Linear | nn.Conv2d | nn.LeakyReLU | nn.Flatten) for layer in layers):
        return None

    def forward(parameters: Any, x: Any) -> Any:
        remaining = iter(parameters)
        for layer in layers:
            if isinstance(layer, nn.LeakyReLU):
                x = jnp.where(x > 0, x, layer.negative_slope * x)
            elif isinstance(layer, nn.Flatten):
                x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
            elif isinstance(layer, nn.Linear):
                x = x @ next(remaining).T
            elif isinstance(layer, nn.Conv2d):
                padding = [(p, p) for p in layer.padding]
                layout = ("NHWC", "HWIO", "NHWC")
                x = lax.conv_general_dilated(x, next(remaining), layer.stride, padding, dimension_numbers=layout)
            if getattr(layer, "bias", None) is not None:
                x = x + next(remaining)
        return x

    return forward
