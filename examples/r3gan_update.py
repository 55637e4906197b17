"""The update of R3GAN: the relativistic pairing loss with R1 and R2, whose points are those that the loss scores."""

from functools import partial

import torch
from plain_loop import mlp, ring

from wgan_fast import (
    CriticStep,
    GeneratorStep,
    r1_r2_penalty,
    relativistic_critic_loss,
    relativistic_generator_loss,
)


def main(steps: int = 5000) -> float:
    generator, critic = mlp(16, 2), mlp(2, 1)
    g_adam, c_adam = (
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.0, 0.99), fused=True)
        for network in (generator, critic)
    )
    penalty = partial(r1_r2_penalty, weight=0.1)
    critic_step = CriticStep(critic, c_adam, penalty=penalty, loss=relativistic_critic_loss)
    generator_step = GeneratorStep(generator, critic, g_adam, loss=relativistic_generator_loss)
    for step in range(steps):
        output = critic_step(ring(256), lambda: generator(torch.randn(256, 16)))
        generator_step(torch.randn(256, 16), real=ring(256))
        if step % 500 == 0:
            print(f"{step}: loss {output.loss.item():.3f}, penalty {output.penalty.item():.3f}")
    return output.loss.item()


if __name__ == "__main__":
    main()
