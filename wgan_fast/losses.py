"""The losses of the Wasserstein GAN."""

from torch import Tensor

from wgan_fast._checks import accumulate_dtype, check_same_device, check_scores


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    r"""The critic's loss, without a penalty; its negative estimates the Wasserstein distance.

    .. math:: \frac{1}{B'} \sum_i f(\tilde{x}_i) - \frac{1}{B} \sum_i f(x_i)

    Args:
        real_scores: :math:`f(x)`, of any shape.
        fake_scores: :math:`f(\tilde{x})`, of any shape, on the same device.

    Returns:
        A scalar; float32 for 16-bit scores, so that the difference of two close means is not lost. Differentiable any
        number of times.

    Raises:
        TypeError: scores are no tensor of float16, bfloat16, float32 or float64.
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
        TypeError: the scores are no tensor of float16, bfloat16, float32 or float64.
        ValueError: the scores are empty.

    Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, algorithm 1, line 10.
    """
    check_scores("fake_scores", fake_scores)
    return -_mean(fake_scores)


def _mean(scores: Tensor) -> Tensor:
    return scores.mean(dtype=accumulate_dtype(scores.dtype))
