"""One update of the critic, and one of the generator, each in one call."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from wgan_fast._checks import (
    ArgumentTypeError,
    ArgumentValueError,
    check_batch,
    check_callable,
    check_scalar,
    check_scores,
    misfit,
    module_of,
    without_partial,
)
from wgan_fast._library import is_traceable
from wgan_fast._step.backends import BACKENDS, Backend, choose_backend, make_runner
from wgan_fast._step.frozen import Frozen
from wgan_fast._step.graph import CaptureError, run_inside_a_capture
from wgan_fast._step.optimization import Optimization, broadcast, has_hooks
from wgan_fast._torch import (
    caches_parametrizations,
    grad_mode,
    held_with_history,
    tensors_in,
    uncached_parametrizations,
    warn_user,
    without_autocast,
)
from wgan_fast.losses import (
    CriticLoss,
    CriticOutput,
    Penalty,
    ScoreLoss,
    Summand,
    critic_loss,
    generator_loss,
    report,
    sum_of,
)
from wgan_fast.penalties import SCALED_PENALTIES, gradient_penalty

__all__ = ["BACKENDS", "Backend", "CriticStep", "GeneratorStep", "Samples"]

#: A batch, or a function without arguments that makes one.
Samples = Tensor | Callable[[], Tensor]


class _Step:
    """Common to both steps: a loss, its gradients with respect to the optimizer's parameters, an update of these."""

    def __init__(self, networks: tuple[Any, ...], optimization: Optimization, backend: str) -> None:
        self._networks, self._optimization = networks, optimization
        self._frozen = Frozen(self._modules(), optimization)
        self._on_gpu = optimization.device.type == "cuda"
        self._auto = backend == "auto"
        self._use(*choose_backend(backend, optimization, networks))
        if optimization.process_group is not None:
            tensors = [tensor for module in self._modules() for tensor in _tensors(module)]
            broadcast([*optimization.parameters(frozen=True), *tensors], optimization.process_group)
        elif _trains_apart(self._modules()):
            warn_user(
                f"process_group: {dist.get_world_size()} processes run, and {type(self).__name__} got no group, so "
                "that each trains its networks apart from the others; for one training pass "
                "process_group=torch.distributed.group.WORLD",
                UserWarning,
            )

    def _use(self, backend: str, reason: str) -> None:
        self.backend, self.reason = backend, reason
        self._run = make_runner(backend, self._differentiate, self._optimization, self._frozen)

    def _modules(self) -> list[nn.Module]:
        return [module for network in self._networks if (module := module_of(network)) is not None]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(backend={self.backend!r}: {self.reason})"

    @property
    def skipped(self) -> int:
        """The number of updates that were skipped because a gradient was not finite. Waits for the device."""
        return self._optimization.skipped.total()

    def _summands(self, *inputs: Any) -> Iterator[Summand]:
        """Yields the summands of the loss; each is computed when the iterator reaches it."""
        raise NotImplementedError

    def _report(self, summands: list[Summand]) -> Tensor:
        """The statistics that the step returns, a vector."""
        raise NotImplementedError

    def _step(self, *inputs: Any) -> Tensor:
        self._optimization.check_updates()
        torch.clear_autocast_cache()  # a step changes the weights, and a captured graph must contain the casts
        try:
            with grad_mode(True):
                if self._on_gpu and torch.cuda.is_current_stream_capturing():
                    return run_inside_a_capture(self._differentiate, self._optimization, inputs)
                statistics = self._run_or_go_on_eagerly(inputs)
        finally:
            torch.clear_autocast_cache()
        self._optimization.skipped.listen()
        return statistics

    def _run_or_go_on_eagerly(self, inputs: tuple[Any, ...]) -> Tensor:
        try:
            return self._run(*inputs)
        except CaptureError as error:
            if not self._auto:
                raise
            warn_user(f"{error}; it goes on eagerly", RuntimeWarning)
            self._use("eager", str(error))
        return self._run(*inputs)

    def close(self) -> None:
        """Drops captured graphs or compiled code, and with them their memory. A later call makes them anew."""
        self._run.close()

    def _differentiate(self, *inputs: Any) -> tuple[Tensor, list[Tensor | None], int]:
        """Statistics, gradients, batch size. The graph of each summand is freed before the next one is computed."""
        parameters = self._optimization.parameters()
        if not parameters:
            raise ArgumentValueError("optimizer", "all of its parameters are frozen")
        at_once = self._must_be_differentiated_at_once(parameters, inputs)
        summands: list[Summand] = []
        try:
            for summand in self._summands(*inputs):
                if not summands:  # after the first forward, which checks arguments; frees memory for the new gradients
                    self._forget_gradients()
                if not at_once:
                    self._backward(summand.loss, parameters)
                    summand = summand._replace(loss=summand.loss.detach())
                summands.append(summand)
            if at_once:
                self._backward(sum_of([s.loss for s in summands if s.loss.requires_grad]), parameters)
        except BaseException:
            if summands:  # leave no gradient of some summands alone
                self._forget_gradients()
            raise
        gradients = [parameter.grad for parameter in parameters]
        if all(gradient is None for gradient in gradients):
            raise ArgumentValueError("optimizer", "the loss depends on none of its parameters")
        return self._report(summands).detach(), gradients, summands[0].samples

    def _must_be_differentiated_at_once(self, parameters: list[Tensor], inputs: Any) -> bool:
        """Whether summands share a graph, or a hook must see the whole gradient: once for each parameter."""
        return (
            any(map(has_hooks, parameters))
            or caches_parametrizations()
            or any(tensor.grad_fn is not None for tensor in tensors_in(inputs))
            or any(True for module in self._modules() for _ in held_with_history(module))
        )

    def _forget_gradients(self) -> None:
        for parameter in self._optimization.parameters(frozen=True):
            parameter.grad = None

    def _backward(self, loss: Tensor, parameters: list[Tensor]) -> None:
        """Accumulates the gradients of a summand, and frees its graph."""
        if not loss.requires_grad:  # a lazy penalty is a constant in some steps
            return
        loss = loss if self._optimization.scaler is None else self._optimization.scaler.scale(loss)
        before = [parameter.grad for parameter in parameters]
        # Inductor fuses single additions with their neighbours. PyTorch 2.11 compiled an addition of lists into a
        # kernel that stored to an undefined pointer.
        in_one_launch = self._on_gpu and not is_traceable()
        if in_one_launch:
            for parameter in parameters:
                parameter.grad = None
        with without_autocast(loss.device.type):
            loss.backward(inputs=parameters)
        if in_one_launch:
            _add_gradients(parameters, before)


class CriticStep(_Step):
    r"""One update of a critic: the loss with its penalty, the gradients, the optimizer's step, the clipping of weights.

    Args:
        critic: any callable from a batch of samples to scores.
        optimizer: holds the critic's parameters. Adam and AdamW are fastest with ``fused=True``, which is set for them
            on the CPU where neither ``fused`` nor ``foreach`` is set; on a GPU, set ``capturable=True`` too. For weight
            clipping, :class:`wgan_fast.optim.RMSprop` clips in the same pass.
        penalty, loss: as for :class:`~wgan_fast.losses.CriticLoss`.
        clip: bound that the weights are clipped to after each update; None: no clipping.
        backend: ``"eager"``; ``"graph"``, the whole step as one CUDA graph; ``"compile"``, loss and gradients traced as
            one graph and compiled, on a GPU inside of a CUDA graph where the optimizer allows one; or ``"auto"``, a
            CUDA graph where possible, else eager, with a warning if a capture fails. The attribute ``backend`` holds
            the choice, and ``reason`` the reason for it.
        scaler: None, or a GradScaler for float16 under autocast. The step passes it on to this library's penalties;
            bind it to others yourself.
        process_group: None, or the processes that train together, each with samples of its own. Parameters are copied
            from the first process at construction. Gradients and statistics are averaged over all samples in one
            all-reduce, also where the processes have different numbers of samples. None causes a warning where several
            processes run.

    Call it with ``real``, ``fake``, and further arguments of the critic. ``fake`` is a tensor, or a function without
    arguments that makes one. The step calls the function without gradients, and captures it too, random numbers
    included; pass the same function every time. Returns a detached :class:`~wgan_fast.losses.CriticOutput`, without
    waiting for the device.

    An update with a gradient that is not finite is skipped; ``skipped`` counts these, and a warning reports them. On a
    GPU, the step waits for the device if the optimizer cannot skip on the device, as PyTorch's with ``fused=True`` can.

    A CUDA graph or compiled code is made anew for new shapes, for a learning rate that is a changed number rather than
    a tensor, and for another training mode.

    Attributes:
        penalised: whether it has a penalty.
        gradient_norm: the mean norm of the gradients that the penalty saw in the last call, a scalar on the device; 0
            where it was not one of this library's, None before the first call.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the backend cannot be used, or shapes, dtypes or devices differ. Nothing has been changed then.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, algorithm 1, lines 4 to 9; with ``clip``:
    Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, algorithm 1, lines 3 to 7.

    Example:
        >>> critic = torch.nn.Linear(2, 1)
        >>> step = CriticStep(critic, torch.optim.Adam(critic.parameters(), lr=1e-4, betas=(0.0, 0.9)))
        >>> output = step(torch.randn(8, 2), torch.randn(8, 2))
    """

    def __init__(
        self,
        critic: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        penalty: Penalty | None = gradient_penalty,
        loss: ScoreLoss = critic_loss,
        clip: float | None = None,
        backend: Backend = "auto",
        scaler: torch.amp.GradScaler | None = None,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        if isinstance(critic, DistributedDataParallel):
            raise ArgumentTypeError(
                "critic",
                "expected a critic that is not in DistributedDataParallel; pass its module, with "
                "process_group, or wrap a CriticLoss",
            )
        optimization = Optimization(optimizer, clip=clip, scaler=scaler, process_group=process_group)
        if penalty is not None and optimization.scaler is not None and _takes_scaler(penalty):
            penalty = partial(penalty, scaler=optimization.scaler)
        optimization.generators += _generators(penalty)
        self._critic_loss = CriticLoss(critic, penalty=penalty, loss=loss)
        self.penalised = penalty is not None
        self.gradient_norm: Tensor | None = None
        super().__init__((critic,), optimization, backend)

    def __call__(self, real: Tensor, fake: Samples, *args: Any, **kwargs: Any) -> CriticOutput:
        """Updates the critic. Returns loss, Wasserstein estimate and penalty, computed before the update."""
        loss, wasserstein, penalty, self.gradient_norm = self._step(real, fake, args, kwargs).unbind()
        return CriticOutput(loss, wasserstein, penalty)

    def _summands(self, real: Tensor, fake: Samples, args: Any, kwargs: Any) -> Iterator[Summand]:
        with torch.no_grad(), uncached_parametrizations():
            fake = _samples("fake", fake)
        if self._optimization.process_group is not None and isinstance(fake, Tensor) and len(fake) != len(real):
            raise ArgumentValueError(
                "fake", f"expected {len(real)} samples, as many as real, with a process group, got {len(fake)}"
            )
        yield from self._critic_loss.summands(real, fake, *args, **kwargs)

    def _report(self, summands: list[Summand]) -> Tensor:
        return torch.stack(report(summands))


class GeneratorStep(_Step):
    r"""One update of a generator: its loss, by default :math:`-\frac{1}{B} \sum_i f(G(z_i))`, the gradients, the
    optimizer's step.

    Args:
        generator: any callable from latent vectors to samples.
        critic: any callable from samples to scores. Its parameters and their gradients are not touched.
        optimizer: holds the generator's parameters.
        loss: any callable from the scores of generated samples to a scalar, for example
            :func:`~wgan_fast.losses.non_saturating_generator_loss`.
        backend, scaler, process_group: as for :class:`CriticStep`.

    Call it with ``latent``, a tensor or a function without arguments that draws one, and further arguments of both
    generator and critic (labels, say). With ``real=samples`` the loss is called with two arguments, the scores of the
    generated and those of the real samples, as :func:`~wgan_fast.losses.relativistic_generator_loss` needs. Returns the
    detached loss, without waiting for the device.

    Errors, skipped updates and captures are as for :class:`CriticStep`.

    Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, algorithm 1, lines 9 to 11.
    """

    def __init__(
        self,
        generator: Callable[..., Tensor],
        critic: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        loss: Callable[..., Tensor] = generator_loss,
        backend: Backend = "auto",
        scaler: torch.amp.GradScaler | None = None,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        for name, function in (("generator", generator), ("critic", critic), ("loss", loss)):
            check_callable(name, function)
        self._counts_of_scores = [count for count in (1, 2) if misfit(loss, [None] * count) is None]
        if not self._counts_of_scores:
            raise ArgumentTypeError("loss", "expected loss(fake_scores), or loss(fake_scores, real_scores)")
        self._generator, self._critic, self._loss = generator, critic, loss
        optimization = Optimization(optimizer, scaler=scaler, process_group=process_group)
        of_critic_alone = _parameter_ids(critic) - _parameter_ids(generator)
        if any(id(parameter) in of_critic_alone for parameter in optimization.parameters(frozen=True)):
            raise ArgumentValueError("optimizer", "expected the generator's parameters, got some of the critic's")
        super().__init__((generator, critic), optimization, backend)

    def __call__(self, latent: Samples, *args: Any, real: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Updates the generator. Returns its loss, computed before the update."""
        if (1 if real is None else 2) not in self._counts_of_scores:
            if real is None:
                raise ArgumentValueError("real", "expected the real samples that the loss compares with, got None")
            raise ArgumentValueError("real", "expected None, because the loss takes the scores of the fakes alone")
        return self._step(latent, real, args, kwargs).squeeze(0)

    def _summands(self, latent: Samples, real: Tensor | None, args: Any, kwargs: Any) -> Iterator[Summand]:
        fake = self._generator(_samples("latent", latent), *args, **kwargs)
        scores = [self._critic(fake, *args, **kwargs)]
        if real is not None:
            check_batch("real", real)
            with torch.no_grad():
                scores.append(self._critic(real, *args, **kwargs))
        for one in scores:
            check_scores("critic", one)
        loss = self._loss(*scores)
        check_scalar("loss", loss)
        yield Summand(loss, len(fake))

    def _report(self, summands: list[Summand]) -> Tensor:
        return summands[0].loss.reshape(1)


@torch.no_grad()
def _add_gradients(parameters: list[Tensor], before: list[Tensor | None]) -> None:
    """Adds the earlier gradients to those of the parameters; autograd would launch a kernel for each parameter."""
    earlier, later = [], []
    for parameter, gradient in zip(parameters, before, strict=True):
        if gradient is not None and parameter.grad is not None:
            if gradient.is_sparse or parameter.grad.is_sparse:
                parameter.grad = gradient + parameter.grad
                continue
            earlier.append(gradient)
            later.append(parameter.grad)
        if gradient is not None:
            parameter.grad = gradient
    if earlier:
        torch._foreach_add_(earlier, later)


def _samples(name: str, samples: Samples) -> Tensor:
    if not isinstance(samples, Tensor) and not callable(samples):
        raise ArgumentTypeError(name, f"expected a Tensor, or a function that makes one, got {type(samples).__name__}")
    try:
        made = samples if isinstance(samples, Tensor) else samples()
    except TypeError as error:
        if misfit(samples, ()) is None:
            raise
        raise ArgumentTypeError(
            name,
            f"expected a Tensor, or a function without arguments that makes one, got {type(samples).__name__}; such as "
            "`lambda: generator(latent)`",
        ) from error
    if not isinstance(made, Tensor):
        raise ArgumentTypeError(name, f"expected a function that makes a Tensor, it made {type(made).__name__}")
    return made


def _parameter_ids(network: Any) -> set[int]:
    module = module_of(network)
    return set() if module is None else set(map(id, module.parameters()))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _trains_apart(modules: list[nn.Module]) -> bool:
    """Whether this is one of several processes, and nothing seen here averages their gradients."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return False
    return not any(isinstance(part, DistributedDataParallel) for module in modules for part in module.modules())


def _generators(penalty: Any) -> list[torch.Generator]:
    return [value for value in without_partial(penalty)[1].values() if isinstance(value, torch.Generator)]


def _takes_scaler(penalty: Any) -> bool:
    function, keywords = without_partial(penalty)
    return function in SCALED_PENALTIES and "scaler" not in keywords
