"""Losses of the Wasserstein GAN, and of the minimax and the non-saturating GAN."""

import inspect
import sys
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from wgan_fast._checks import (
    ArgumentTypeError,
    ArgumentValueError,
    accumulate_dtype,
    check_batch,
    check_callable,
    check_same_device,
    check_same_shape,
    check_scalar,
    check_scores,
    module_of,
    without_partial,
)
from wgan_fast._critic.rows import rows_are_independent
from wgan_fast._library import is_recorded
from wgan_fast._torch import ordinary, to_same_dtype, training_mode
from wgan_fast.penalties import dragan_penalty, gradient_penalty, r1_penalty, r2_penalty, wgan_div_penalty

#: A CriticLoss probes its critic in so many training modes and shapes of batches; in others it scores real and fake
#: samples one after the other.
PROBED_KINDS = 32
Penalty = Callable[..., Tensor]
#: ``(real_scores, fake_scores) -> scalar``
ScoreLoss = Callable[[Tensor, Tensor], Tensor]


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    r"""The critic's loss, without a penalty; its negative estimates the Wasserstein distance.

    .. math:: \frac{1}{B'} \sum_i f(\tilde{x}_i) - \frac{1}{B} \sum_i f(x_i)

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

    Its minimum over all discriminators is :math:`2 \log 2 - 2\,\mathrm{JS}`.

    Args, returns and raises as :func:`critic_loss`; the scores are logits, :math:`f`.

    Source: Goodfellow et al., "Generative Adversarial Nets", 2014, algorithm 1 and theorem 1.
    """
    check_scores("real_scores", real_scores)
    check_scores("fake_scores", fake_scores)
    check_same_device("fake_scores", fake_scores, "real_scores", real_scores)
    return _mean(_softplus(-real_scores)) + _mean(_softplus(fake_scores))


def minimax_generator_loss(fake_scores: Tensor) -> Tensor:
    r"""The generator's loss in the minimax GAN ("solution 1").

    .. math:: \frac{1}{B} \sum_i \log(1 - \sigma(f(G(z_i))))

    Its gradient vanishes where the discriminator rejects samples with certainty. Args, returns and raises as
    :func:`generator_loss`.

    Source: Goodfellow et al., "Generative Adversarial Nets", 2014, equation 1.
    """
    check_scores("fake_scores", fake_scores)
    return -_mean(_softplus(fake_scores))


def non_saturating_generator_loss(fake_scores: Tensor) -> Tensor:
    r"""The generator's loss in the non-saturating GAN ("solution 2").

    .. math:: -\frac{1}{B} \sum_i \log \sigma(f(G(z_i)))

    Args, returns and raises as :func:`generator_loss`.

    Source: Goodfellow et al., "Generative Adversarial Nets", 2014, section 3.
    """
    check_scores("fake_scores", fake_scores)
    return _mean(_softplus(-fake_scores))


def dual_estimate(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    r"""A critic's estimate of the Wasserstein distance; for a 1-Lipschitz critic, a lower bound of it in expectation.

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
    check_batch("real", real)
    check_batch("fake", fake)
    if fake.shape[1:] != real.shape[1:]:
        raise ArgumentValueError(
            "fake", f"expected samples of shape {tuple(real.shape[1:])} as of real, got {tuple(fake.shape[1:])}"
        )
    check_same_device("fake", fake, "real", real)
    scores = critic(real.detach()), critic(fake.detach())
    for one in scores:
        check_scores("critic", one)
    return -critic_loss(*scores)


class CriticOutput(NamedTuple):
    """What :class:`CriticLoss` returns: scalars."""

    loss: Tensor  #: minimised by the critic, with the penalty; by default ``penalty - wasserstein``
    wasserstein: Tensor  #: mean f(real) - mean f(fake), the estimate of the Wasserstein distance; detached
    penalty: Tensor  #: detached; 0 without one

    @classmethod
    def of(cls, terms: dict[str, Tensor]) -> "CriticOutput":
        """The output for the terms of :meth:`CriticLoss.terms`."""
        loss = terms["loss"]
        penalty = terms.get("penalty", torch.zeros_like(loss))
        return cls(loss + penalty, terms.get("wasserstein", -loss.detach()), penalty.detach())


class CriticLoss(nn.Module):
    r"""The loss of a critic with its penalty, as one module: what DistributedDataParallel and FSDP2 can wrap.

    .. math:: \frac{1}{B} \sum_i f(\tilde{x}_i) - \frac{1}{B} \sum_i f(x_i) + \mathrm{penalty}(f, x, \tilde{x})

    A penalty computed outside the wrapped module can bypass the all-reduce of gradients.

    Args:
        critic: :math:`f`, any callable from a batch of samples to scores; a Module becomes a submodule.
        penalty: any callable ``(critic, real, fake, *args) -> scalar``, for example
            ``functools.partial(gradient_penalty, weight=0.1)``; None: no penalty.
        loss: any callable ``(real_scores, fake_scores) -> scalar``, for example :func:`discriminator_loss`.

    Call it with ``real`` and ``fake``, of shape (B, ...), and further arguments of the critic. Both are detached: no
    gradient reaches the generator. Returns a :class:`CriticOutput`, whose ``loss`` has a graph.

    A critic that is called with samples alone scores real and fake ones in one batch, if that equals scoring one after
    the other. It does not where rows of a batch influence one another (batch normalisation, minibatch standard
    deviation), where a score depends on the row's place or on the size of the batch, or where scoring changes buffers
    or draws random numbers (spectral normalisation, dropout). A probe of six forwards decides, at calls 1, 2, 4, 8,
    ... in each training mode and for each shape of the batches; in doubt, samples are scored one after the other. The
    probe restores buffers and PyTorch's random state, though no other state of the critic, such as a counter in an
    attribute. A critic that is neither a Module nor a method of one is not probed: it scores real and fake samples one
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
        check_callable("loss", loss)
        _check_penalty(penalty)
        self.critic = critic
        self.penalty = penalty
        self.loss = loss
        # training mode and shapes -> (number of calls, whether rows are independent)
        self._probed: dict[Hashable, tuple[int, bool | None]] = {}

    def forward(self, real: Tensor, fake: Tensor, *args: Any, **kwargs: Any) -> CriticOutput:
        """The loss at real and generated samples; further arguments go to the critic untouched."""
        return CriticOutput.of(dict(self.terms(real, fake, *args, **kwargs)))

    def terms(self, real: Tensor, fake: Tensor, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        """Yields ``(name, term)``: the ``penalty`` and the ``loss`` of the scores, whose sum is minimised; and
        ``wasserstein`` where that is not the negative loss. Each term is computed when the iterator reaches it, so that
        a caller who differentiates one before the next holds one graph at a time.
        """
        real, fake = _samples(real, fake)
        if without_partial(self.penalty)[0] in (gradient_penalty, wgan_div_penalty):
            check_same_shape("fake", fake, "real", real)  # before anything is differentiated
        _check_keywords(kwargs, self.penalty)
        if self.penalty is not None and not torch.compiler.is_compiling():
            _check_sharding(self.critic)
        if args or kwargs:
            args, kwargs = tree_map_only(Tensor, ordinary, (args, kwargs))
        # Otherwise the scores come first, as in the textbook: scoring has side effects, which depend on the order.
        in_one_batch = not args and not kwargs and self._in_one_batch(real, fake)
        if in_one_batch and self.penalty is not None:
            yield "penalty", self._penalty(real, fake)
        yield from self._of_scores(*self._scores(real, fake, args, kwargs, in_one_batch))
        if not in_one_batch and self.penalty is not None:
            yield "penalty", self._penalty(real, fake, *args, **kwargs)

    def _of_scores(self, real_scores: Tensor, fake_scores: Tensor) -> list[tuple[str, Tensor]]:
        loss = self.loss(real_scores, fake_scores)
        check_scalar("loss", loss)
        if self.loss is critic_loss:
            return [("loss", loss)]
        return [("wasserstein", -critic_loss(real_scores.detach(), fake_scores.detach())), ("loss", loss)]

    def _penalty(self, real: Tensor, fake: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert self.penalty is not None
        penalty = self.penalty(self.critic, real, fake, *args, **kwargs)
        check_scalar("penalty", penalty)
        return penalty

    def _scores(
        self, real: Tensor, fake: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], in_one_batch: bool
    ) -> tuple[Tensor, Tensor]:
        if in_one_batch:
            return self.critic(torch.cat([real, fake])).split([len(real), len(fake)])
        scores = self.critic(real, *args, **kwargs), self.critic(fake, *args, **kwargs)
        for one in scores:
            check_scores("critic", one)
        return scores

    def _in_one_batch(self, real: Tensor, fake: Tensor) -> bool:
        module = module_of(self.critic)
        if module is None or torch.compiler.is_compiling():
            return False
        # Whether a dropout draws numbers matters, its probability does not: that may be annealed.
        drops = ((training, p is not None and 0 < p < 1) for training, p in training_mode(module))
        kind = (*drops, real.shape, fake.shape)
        if kind not in self._probed and len(self._probed) == PROBED_KINDS:
            return False
        calls, independent = self._probed.get(kind, (0, None))
        calls += 1
        # Again at every power of two: training may couple rows, as where the weight of a mixing layer was zero.
        if independent is not False and calls.bit_count() == 1 and not is_recorded():
            independent = rows_are_independent(self.critic, real, fake)
        self._probed[kind] = calls, independent
        return bool(independent)


def _check_penalty(penalty: Any) -> None:
    """A callable ``(critic, real, fake, *args)``, or None."""
    if penalty is not None and not callable(penalty):
        wanted = "a callable, such as functools.partial(gradient_penalty, weight=10.0), or None"
        raise ArgumentTypeError("penalty", f"expected {wanted}, got {type(penalty).__name__}")
    function, _ = without_partial(penalty)
    if function in (r1_penalty, r2_penalty, dragan_penalty):
        samples = "fake" if function is r2_penalty else "real"
        raise ArgumentValueError(
            "penalty",
            f"{function.__name__} takes {samples} samples alone, and is called with both; pass "
            f"`lambda critic, real, fake, *args: {function.__name__}(critic, {samples}, *args)`",
        )


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
    check_batch("real", real)
    check_batch("fake", fake)
    if fake.shape[1:] != real.shape[1:]:
        raise ArgumentValueError(
            "fake", f"expected samples of shape {tuple(real.shape[1:])} as of real, got {tuple(fake.shape[1:])}"
        )
    check_same_device("fake", fake, "real", real)
    return ordinary(real).detach(), ordinary(to_same_dtype("fake", fake, "real", real)).detach()


def _softplus(scores: Tensor) -> Tensor:
    """``log(1 + exp(scores))``; float32 for 16-bit scores, against overflow."""
    return F.softplus(scores.to(accumulate_dtype(scores.dtype)))


def _mean(scores: Tensor) -> Tensor:
    return scores.mean(dtype=accumulate_dtype(scores.dtype))
