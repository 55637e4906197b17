"""Losses of the Wasserstein GAN, and of the minimax and the non-saturating GAN."""

import inspect
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from wgan_fast._checks import (
    ArgumentTypeError,
    ArgumentValueError,
    accumulate_dtype,
    check_callable,
    check_same_device,
    check_same_samples,
    check_same_shape,
    check_scalar,
    check_scores,
    misfit,
    module_of,
    without_partial,
)
from wgan_fast._critic.rows import for_both, hold_one_per_sample, rows_are_independent
from wgan_fast._library import is_recorded
from wgan_fast._torch import ordinary, tensors_in, to_same_dtype, training_mode
from wgan_fast.penalties import (
    AT_SCORED_SAMPLES,
    dragan_penalty,
    finite_difference_penalty,
    gradient_penalty,
    r1_penalty,
    r2_penalty,
    scores_and_penalty,
    watching_norms,
    wgan_div_penalty,
)

__all__ = [  # noqa: RUF022 (the order of the API's page)
    "critic_loss",
    "generator_loss",
    "CriticLoss",
    "CriticOutput",
    "discriminator_loss",
    "minimax_generator_loss",
    "non_saturating_generator_loss",
    "relativistic_critic_loss",
    "relativistic_generator_loss",
    "dual_estimate",
]

#: A CriticLoss probes its critic in so many training modes and shapes of batches; in others it scores real and fake
#: samples one after the other.
PROBED_KINDS = 32
Penalty = Callable[..., Tensor]
#: ``(real_scores, fake_scores) -> scalar``
ScoreLoss = Callable[[Tensor, Tensor], Tensor]


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    r"""The critic's loss, without a penalty; its negative estimates the Wasserstein distance.

    .. math:: \frac{1}{B'} \sum_i f(\tilde{x}_i) - \frac{1}{B} \sum_i f(x_i)

    For a K-Lipschitz critic the estimate is, up to sampling, at most K times the distance.

    Args:
        real_scores: :math:`f(x)`, of any shape.
        fake_scores: :math:`f(\tilde{x})`, of any shape, on the same device.

    Returns:
        A scalar; float32 for 16-bit scores, to keep the difference of two close means. Differentiable any number of
        times.

    Raises:
        TypeError: scores are not a tensor of float16, bfloat16, float32 or float64.
        ValueError: scores are empty, or on different devices.

    Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, equation 2 and algorithm 1.
    """
    check_scores("real_scores", real_scores)
    check_scores("fake_scores", fake_scores)
    check_same_device("fake_scores", fake_scores, "real_scores", real_scores)
    return _mean(fake_scores) - _mean(real_scores)


def generator_loss(fake_scores: Tensor) -> Tensor:
    r"""The generator's loss.

    .. math:: -\frac{1}{B} \sum_i f(G(z_i))

    Args:
        fake_scores: :math:`f(G(z))`, of any shape.

    Returns:
        A scalar; float32 for 16-bit scores. Differentiable any number of times.

    Raises:
        TypeError: the scores are not a tensor of float16, bfloat16, float32 or float64.
        ValueError: the scores are empty.

    Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, algorithm 1, line 10.
    """
    check_scores("fake_scores", fake_scores)
    return -_mean(fake_scores)


def discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    r"""The loss of the discriminator :math:`D = \sigma(f)` in the minimax and in the non-saturating GAN.

    .. math:: -\frac{1}{B} \sum_i \log D(x_i) - \frac{1}{B'} \sum_i \log(1 - D(\tilde{x}_i))

    The infimum of its expectation over all discriminators is :math:`2 \log 2 - 2\,\mathrm{JS}(p_r, p_g)`.

    Args, returns and raises as :func:`critic_loss`; the scores are logits, :math:`f`.

    Source: Goodfellow et al., "Generative Adversarial Nets", 2014, algorithm 1 and theorem 1.
    """
    check_scores("real_scores", real_scores)
    check_scores("fake_scores", fake_scores)
    check_same_device("fake_scores", fake_scores, "real_scores", real_scores)
    return _mean(_softplus(-real_scores)) + _mean(_softplus(fake_scores))


def minimax_generator_loss(fake_scores: Tensor) -> Tensor:
    r"""The generator's loss in the minimax GAN, :math:`\log(1 - D)` (called GAN0 by some authors).

    .. math:: \frac{1}{B} \sum_i \log(1 - D(G(z_i))), \qquad D = \sigma \circ f

    The generator minimises the value that the discriminator maximises. With the discriminator that is optimal for the
    densities :math:`p_r` and :math:`p_g` held fixed, the expectation of its gradient is that of
    :math:`2\,\mathrm{JS}(p_r, p_g)`. It vanishes as the discriminator comes to reject all samples with certainty.

    Args, returns and raises as :func:`generator_loss`; the scores are logits, :math:`f(G(z_i))`.

    Source: Goodfellow et al., "Generative Adversarial Nets", 2014, equation 1; Arjovsky and Bottou, "Towards Principled
    Methods for Training Generative Adversarial Networks", 2017, theorem 2.4.
    """
    check_scores("fake_scores", fake_scores)
    return -_mean(_softplus(fake_scores))


def non_saturating_generator_loss(fake_scores: Tensor) -> Tensor:
    r"""The generator's loss in the non-saturating GAN, :math:`-\log D` (called GAN1 by some authors).

    .. math:: -\frac{1}{B} \sum_i \log D(G(z_i)), \qquad D = \sigma \circ f

    With the discriminator that is optimal for the densities :math:`p_r` and :math:`p_g` held fixed, the expectation of
    its gradient is that of :math:`\mathrm{KL}(p_g \| p_r) - 2\,\mathrm{JS}(p_r, p_g)`.

    Args, returns and raises as :func:`generator_loss`; the scores are logits, :math:`f(G(z_i))`.

    Source: Goodfellow et al., "Generative Adversarial Nets", 2014, section 3; Arjovsky and Bottou, "Towards Principled
    Methods for Training Generative Adversarial Networks", 2017, theorem 2.5.
    """
    check_scores("fake_scores", fake_scores)
    return _mean(_softplus(-fake_scores))


def dual_estimate(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    r"""A critic's estimate of the Wasserstein distance. In expectation it is at most that distance, for a 1-Lipschitz
    critic that does not depend on these samples.

    .. math:: \frac{1}{B} \sum_i f(x_i) - \frac{1}{B'} \sum_i f(\tilde{x}_i)

    Args:
        critic: :math:`f`, any callable from a batch of samples to scores.
        real: the samples :math:`x`, of shape (B, ...).
        fake: the samples :math:`\tilde{x}`, of shape (B', ...), on the same device.

    Returns:
        A scalar; float32 for 16-bit scores. Differentiable with respect to the critic's parameters; the samples are
        detached, so no gradient reaches a generator.

    Raises:
        TypeError: an argument is of the wrong type, or the critic returned no floating-point tensor.
        ValueError: a batch is empty, or samples differ in shape or device.

    Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, equation 2.
    """
    check_callable("critic", critic)
    check_same_samples("fake", fake, "real", real)
    scores = critic(real.detach()), critic(fake.detach())
    for one in scores:
        check_scores("critic", one)
    return -critic_loss(*scores)


def relativistic_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    r"""The critic's loss in the relativistic pairing GAN, with the logistic function.

    .. math:: \frac{1}{B} \sum_i \log\left(1 + e^{f(\tilde{x}_i) - f(x_i)}\right)

    Args:
        real_scores: :math:`f(x)`, of any shape.
        fake_scores: :math:`f(\tilde{x})`, of the same shape and device.

    Returns, raises: as :func:`critic_loss`; also ValueError where the shapes differ.

    Source: Jolicoeur-Martineau, "The relativistic discriminator", 2018, section 4.2; Huang et al., "The GAN is dead;
    long live the GAN! A Modern GAN Baseline", 2024, equation 2.
    """
    return _mean(_softplus(_differences(fake_scores, real_scores)))


def relativistic_generator_loss(fake_scores: Tensor, real_scores: Tensor) -> Tensor:
    r"""The generator's loss in the relativistic pairing GAN.

    .. math:: \frac{1}{B} \sum_i \log\left(1 + e^{f(x_i) - f(G(z_i))}\right)

    Args:
        fake_scores: :math:`f(G(z))`, of any shape.
        real_scores: :math:`f(x)`, of the same shape and device. :class:`~wgan_fast.step.GeneratorStep` passes them
            where it is called with ``real``.

    Returns, raises, source: as :func:`relativistic_critic_loss`.
    """
    return _mean(_softplus(_differences(real_scores, fake_scores, "real_scores", "fake_scores")))


def _differences(scores: Tensor, others: Tensor, name: str = "fake_scores", other_name: str = "real_scores") -> Tensor:
    check_scores(name, scores)
    check_scores(other_name, others)
    check_same_shape(name, scores, other_name, others)  # pairs
    check_same_device(name, scores, other_name, others)
    dtype = accumulate_dtype(scores.dtype)
    return scores.to(dtype) - others.to(dtype)


class CriticOutput(NamedTuple):
    """What :class:`CriticLoss` returns: scalars."""

    loss: Tensor  #: minimised by the critic, with the penalty; by default ``penalty - wasserstein``
    wasserstein: Tensor  #: mean f(real) - mean f(fake), the estimate of the Wasserstein distance; detached
    penalty: Tensor  #: detached; 0 without one


class Summand(NamedTuple):
    """A summand of a loss, with a graph of its own, and what it adds to what is reported."""

    loss: Tensor  #: a scalar, with the graph
    samples: int  #: in the batch
    wasserstein: Tensor | None = None
    penalty: Tensor | None = None
    norms: Tensor | None = None  #: of the penalised gradients


def report(summands: Sequence[Summand]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums of the losses, the Wasserstein estimates and the penalties, and the mean norm; 0 where there is none."""
    loss = sum_of([summand.loss for summand in summands])
    wasserstein, penalties, norms = (
        [value for value in values if value is not None]
        for values in zip(*(summand[2:] for summand in summands), strict=True)
    )
    zero = loss if wasserstein and penalties and norms else torch.zeros_like(loss.detach())
    return (
        loss,
        sum_of(wasserstein) if wasserstein else zero,
        sum_of(penalties) if penalties else zero,
        _joined(norms).mean().to(loss.dtype) if norms else zero,
    )


class CriticLoss(nn.Module):
    r"""The loss of a critic with its penalty, as one module: what DistributedDataParallel and FSDP2 can wrap.

    .. math:: \frac{1}{B} \sum_i f(\tilde{x}_i) - \frac{1}{B} \sum_i f(x_i) + \mathrm{penalty}(f, x, \tilde{x})

    A penalty computed outside the wrapped module can bypass the all-reduce of gradients.

    Args:
        critic: :math:`f`, any callable from a batch of samples to scores; a Module becomes a submodule.
        penalty: any callable ``(critic, real, fake, *args) -> scalar``, for example
            ``functools.partial(gradient_penalty, weight=0.1)``; None: no penalty.
        loss: any callable ``(real_scores, fake_scores) -> scalar``, for example :func:`discriminator_loss`.

    The penalties at samples that are scored, :func:`r1_penalty`, :func:`r2_penalty` and :func:`r1_r2_penalty`, share
    the scores' forward, also as a ``functools.partial`` that binds ``weight``. :func:`dragan_penalty` and
    :func:`finite_difference_penalty` are called with the real samples.

    Attributes:
        gradient_norms: the norms that the penalty saw in the last call, of shape (B,) for a batch of B points,
            detached; None where it was not one of this library's.

    Call it with ``real`` and ``fake``, of shape (B, ...), and further arguments of the critic. Both are detached: no
    gradient reaches the generator. Returns a :class:`CriticOutput`, whose ``loss`` has a graph.

    Real and fake samples are scored in one batch, if that equals scoring one after the other. Tensors among the further
    arguments must then hold one row for each sample, as labels do. One batch does not give the same where rows
    influence one another (batch normalisation, minibatch standard deviation), where a score depends on the row's place
    or on the size of the batch, or where scoring changes buffers or draws random numbers (spectral normalisation,
    dropout). A probe of six forwards, with parameters that are moved a little, decides at calls 1, 2, 4, 8, ... in each
    training mode and for each shape of the batches; in doubt, samples are scored one after the other. It restores
    buffers, attributes of modules and PyTorch's random state, though no other state, such as a list that the critic
    appends to. A critic that is neither a Module nor a method of one is not probed: it scores real and fake samples one
    after the other.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, or the penalty is not a scalar.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, algorithm 1.

    Example:
        >>> critic_loss = CriticLoss(torch.nn.Linear(2, 1))
        >>> critic_loss(torch.randn(8, 2), torch.randn(8, 2)).loss.backward()
    """

    def __init__(
        self,
        critic: Callable[..., Tensor],
        *,
        penalty: Penalty | None = gradient_penalty,
        loss: ScoreLoss = critic_loss,
    ) -> None:
        super().__init__()
        check_callable("critic", critic)
        _check_score_loss(loss)
        _check_penalty(penalty)
        self.critic = critic
        self.penalty = penalty
        self.loss = loss
        self.gradient_norms: Tensor | None = None
        # training mode and shapes -> (number of calls, whether rows are independent)
        self._probed: dict[Hashable, tuple[int, bool | None]] = {}

    if TYPE_CHECKING:  # to type checkers the call of a Module returns Any

        def __call__(self, real: Tensor, fake: Tensor, *args: Any, **kwargs: Any) -> CriticOutput: ...

    def forward(self, real: Tensor, fake: Tensor, *args: Any, **kwargs: Any) -> CriticOutput:
        """The loss at real and generated samples; further arguments go to the critic unchanged."""
        return CriticOutput(*report(list(self.summands(real, fake, *args, **kwargs)))[:3])

    def summands(self, real: Tensor, fake: Tensor, *args: Any, **kwargs: Any) -> Iterator[Summand]:
        """Yields the summands of the loss, each computed when the iterator reaches it, so that a caller who
        differentiates one before the next holds one graph at a time.
        """
        real, fake = _samples(real, fake)
        function, bound = without_partial(self.penalty)
        if function in (gradient_penalty, wgan_div_penalty):
            check_same_shape("fake", fake, "real", real)  # before anything is differentiated
        _check_keywords(kwargs, self.penalty)
        if self.penalty is not None and not torch.compiler.is_compiling():
            _check_sharding(self.critic)
        if args or kwargs:
            args, kwargs = tree_map_only(Tensor, ordinary, (args, kwargs))
        if _shares_forward(self.penalty):
            yield from self._at_scored_samples(real, fake, args, kwargs, AT_SCORED_SAMPLES[function], bound)
            return
        in_one_batch = self._in_one_batch(real, fake, args, kwargs)
        # With side effects the scores come first, as in the textbook.
        if in_one_batch:
            yield from self._of_penalty(function, real, fake, args, kwargs)
        loss, wasserstein = self._of_scores(*self._scores(real, fake, args, kwargs, in_one_batch))
        yield Summand(loss, len(real), wasserstein)
        if not in_one_batch:
            yield from self._of_penalty(function, real, fake, args, kwargs)

    def _keep_norms(self, norms: list[Tensor]) -> Tensor | None:
        self.gradient_norms = _joined(norms) if norms else None
        return self.gradient_norms

    def _of_scores(self, real_scores: Tensor, fake_scores: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the Wasserstein estimate."""
        loss = self.loss(real_scores, fake_scores)
        check_scalar("loss", loss)
        if self.loss is critic_loss:
            return loss, -loss.detach()
        return loss, -critic_loss(real_scores.detach(), fake_scores.detach())

    def _of_penalty(
        self, function: Any, real: Tensor, fake: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[Summand]:
        if self.penalty is None:
            return
        samples = _SAMPLES_OF[function](real, fake) if function in _SAMPLES_OF else (real, fake)
        with watching_norms() as norms:
            penalty = self.penalty(self.critic, *samples, *args, **kwargs)
        check_scalar("penalty", penalty)
        yield Summand(penalty, len(real), None, penalty.detach(), self._keep_norms(norms))

    def _scores(
        self, real: Tensor, fake: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], in_one_batch: bool
    ) -> tuple[Tensor, Tensor]:
        if in_one_batch:
            args, kwargs = for_both(args, kwargs)
            return self.critic(torch.cat([real, fake]), *args, **kwargs).split([len(real), len(fake)])
        scores = self.critic(real, *args, **kwargs), self.critic(fake, *args, **kwargs)
        for one in scores:
            check_scores("critic", one)
        return scores

    def _at_scored_samples(
        self,
        real: Tensor,
        fake: Tensor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        at: tuple[bool, bool],
        bound: dict[str, Any],
    ) -> Iterator[Summand]:
        """One forward of each batch, for its scores and, where ``at`` says so, for a penalty at its samples. Each batch
        is a summand of its own where the loss is one.

        Not in one batch, which is as fast and takes more memory.
        """
        terms = _TERMS.get(self.loss)
        all_scores, penalties, norms = [], [], []
        for i, (name, samples) in enumerate((("real", real), ("fake", fake))):
            if at[i]:
                with watching_norms() as watched:
                    scores, penalty = scores_and_penalty(name, self.critic, samples, args, kwargs, **bound)
            else:
                watched, penalty = [], None
                scores = self.critic(samples, *args, **kwargs)
                check_scores("critic", scores)
            norms += watched
            if terms is None:
                all_scores.append(scores)
                penalties += [] if penalty is None else [penalty]
                continue
            loss, estimate = terms[i](scores), _mean(scores.detach())
            yield Summand(
                loss if penalty is None else loss + penalty,
                len(samples),
                estimate if name == "real" else -estimate,
                None if penalty is None else penalty.detach(),
                watched[0] if watched else None,
            )
        norms_of_all = self._keep_norms(norms)
        if terms is None:
            loss, wasserstein = self._of_scores(*all_scores)
            penalty = sum_of(penalties)
            yield Summand(loss + penalty, len(real), wasserstein, penalty.detach(), norms_of_all)

    def _in_one_batch(self, real: Tensor, fake: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        module = module_of(self.critic)
        if module is None or torch.compiler.is_compiling() or not hold_one_per_sample(real, fake, args, kwargs):
            return False
        # Whether a dropout draws numbers matters, its probability does not: that may be annealed.
        drops = ((training, p is not None and 0 < p < 1) for training, p in training_mode(module))
        shapes = (tensor.shape for tensor in tensors_in((args, kwargs)))
        kind = (*drops, real.shape, fake.shape, *shapes)
        if kind not in self._probed and len(self._probed) == PROBED_KINDS:
            return False
        calls, independent = self._probed.get(kind, (0, None))
        calls += 1
        # Again at every power of two: training may couple rows, as where a frozen mixing layer is trained later.
        if independent is not False and calls.bit_count() == 1 and not is_recorded():
            independent = rows_are_independent(self.critic, real, fake, *args, **kwargs)
        self._probed[kind] = calls, independent
        return bool(independent)


#: Losses that are a sum of a term of the real scores and one of the fake scores, and these terms.
_TERMS: dict[Any, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    critic_loss: (lambda real_scores: -_mean(real_scores), lambda fake_scores: _mean(fake_scores)),
    discriminator_loss: (
        lambda real_scores: _mean(_softplus(-real_scores)),
        lambda fake_scores: _mean(_softplus(fake_scores)),
    ),
}


def _check_penalty(penalty: Any) -> None:
    """A callable ``(critic, real, fake, *args)``, or None."""
    if penalty is not None and not callable(penalty):
        wanted = "a callable, such as functools.partial(gradient_penalty, weight=10.0), or None"
        raise ArgumentTypeError("penalty", f"expected {wanted}, got {type(penalty).__name__}")


#: The samples of penalties that are not called with real and fake ones.
_SAMPLES_OF: dict[Any, Callable[[Tensor, Tensor], tuple[Tensor, ...]]] = {
    r1_penalty: lambda real, fake: (real,),
    r2_penalty: lambda real, fake: (fake,),
    dragan_penalty: lambda real, fake: (real,),
    finite_difference_penalty: lambda real, fake: (real,),
}


def _shares_forward(penalty: Any) -> bool:
    """Whether it penalises scored samples, with the critic called as for the scores."""
    function, bound = without_partial(penalty)
    positional = getattr(penalty, "args", ()) if isinstance(penalty, partial) else ()
    return function in AT_SCORED_SAMPLES and bound.keys() <= {"weight", "scaler"} and not positional


def _joined(norms: list[Tensor]) -> Tensor:
    return norms[0] if len(norms) == 1 else torch.cat(norms)


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Their sum; of one, itself."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).sum(0)


def _check_score_loss(loss: Any) -> None:
    check_callable("loss", loss)
    function, _ = without_partial(loss)
    name = getattr(function, "__name__", type(function).__name__)
    of_class = type(function) if isinstance(function, nn.Module) else function
    if getattr(of_class, "__module__", None) in ("torch.nn.modules.loss", "torch.nn.functional"):
        raise ArgumentTypeError(
            "loss",
            f"expected loss(real_scores, fake_scores), but {name} compares an input with a target; the standard GAN's "
            "is discriminator_loss",
        )
    if reason := misfit(loss, (None, None)):
        raise ArgumentTypeError("loss", f"expected loss(real_scores, fake_scores), got {name}: {reason}")


def _check_keywords(keywords: dict[str, Any], penalty: Any) -> None:
    """Keyword arguments of the critic, which the penalty would take for its own."""
    function, _ = without_partial(penalty)
    if not keywords or function not in (gradient_penalty, wgan_div_penalty):
        return
    for name, parameter in inspect.signature(function).parameters.items():
        if name in keywords and parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            raise ArgumentValueError(
                name,
                f"the critic would get it, but {function.__name__} has a keyword {name} too; pass the critic's by "
                "position, or wrap the penalty: `penalty=lambda critic, real, fake, **kwargs: "
                f"{function.__name__}(lambda x: critic(x, **kwargs), real, fake)`",
            )


def _check_sharding(critic: Any) -> None:
    """FSDP2 on parts of the critic: depending on its settings PyTorch would raise an error or leave out gradients."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")  # absent where nothing is sharded
    module = module_of(critic)
    if fsdp is None or module is None or not torch.distributed.is_initialized():
        return
    for name, part in module.named_modules():
        if name and isinstance(part, fsdp.FSDPModule):
            raise ArgumentValueError(
                "critic",
                f"{name} is sharded by itself, which a penalty does not allow: its second derivative comes after FSDP "
                "has released the layer; shard the CriticLoss as a whole, as docs/step.md does",
            )


def _samples(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    check_same_samples("fake", fake, "real", real)
    return ordinary(real).detach(), ordinary(to_same_dtype("fake", fake, "real", real)).detach()


#: The types that are their own :func:`accumulate_dtype`. Asked first, it spares small calls a conversion to themselves.
_ACCUMULATED = frozenset({torch.float32, torch.float64})


def _softplus(scores: Tensor) -> Tensor:
    """``log(1 + exp(scores))``; float32 for 16-bit scores, against overflow."""
    return F.softplus(scores if scores.dtype in _ACCUMULATED else scores.float())


def _mean(scores: Tensor) -> Tensor:
    return scores.mean() if scores.dtype in _ACCUMULATED else scores.mean(dtype=torch.float32)
