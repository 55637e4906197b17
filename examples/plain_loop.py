"""WGAN-GP in a plain loop: only the penalty comes from the library."""

import torch
from torch import nn

from wgan_fast import critic_loss, generator_loss, gradient_penalty


def mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, outputs)
    )


def ring(count: int) -> torch.Tensor:
    """Eight Gaussians on a circle."""
    angle = torch.randint(8, (count,)) * (torch.pi / 4)
    return torch.stack([angle.cos(), angle.sin()], dim=1) * 1.4 + torch.randn(count, 2) * 0.02


def main(steps: int = 5000) -> float:
    generator, critic = mlp(16, 2), mlp(2, 1)
    g_adam, c_adam = (
        torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.9), fused=True) for network in (generator, critic)
    )
    for step in range(steps):
        for _ in range(5):
            real = ring(256)
            with torch.no_grad():
                fake = generator(torch.randn(256, 16))
            loss = critic_loss(critic(real), critic(fake)) + gradient_penalty(critic, real, fake, weight=0.1)
            c_adam.zero_grad()
            loss.backward()
            c_adam.step()
        g_loss = generator_loss(critic(generator(torch.randn(256, 16))))
        g_adam.zero_grad()
        g_loss.backward()
        g_adam.step()
        if step % 500 == 0:
            print(f"{step}: critic {loss.item():.3f}, generator {g_loss.item():.3f}")
    return loss.item()


if __name__ == "__main__":
    main()
