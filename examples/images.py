"""WGAN-GP on images of 32 x 32, with both updates as one call each: a CUDA graph on a GPU, eager on a CPU."""

import torch
from torch import nn

from wgan_fast import CriticStep, GeneratorStep

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make_networks(width: int = 32) -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(
        nn.Unflatten(1, (-1, 1, 1)),
        nn.ConvTranspose2d(64, 4 * width, 4), nn.BatchNorm2d(4 * width), nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    critic = nn.Sequential(  # no batch normalisation: the penalty is of each sample by itself
        nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(4 * width, 1, 4),
    )  # fmt: skip
    return generator.to(DEVICE), critic.to(DEVICE)


def main(steps: int = 1000, batch: int = 64) -> float:
    # Squares of one colour; put your own images here, in [-1, 1].
    colours = torch.rand(1024, 3, 1, 1, device=DEVICE) * 2 - 1
    images = colours.expand(-1, 3, 32, 32)
    generator, critic = make_networks()
    g_adam, c_adam = (
        torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.0, 0.9), fused=True) for network in (generator, critic)
    )
    critic_step, generator_step = CriticStep(critic, c_adam), GeneratorStep(generator, critic, g_adam)

    def latent() -> torch.Tensor:
        return torch.randn(batch, 64, device=DEVICE)

    for step in range(steps):
        for _ in range(5):
            real = images[torch.randint(len(images), (batch,), device=DEVICE)]
            output = critic_step(real, lambda: generator(latent()))
        generator_step(latent)
        if step % 100 == 0:
            print(f"{step}: estimate of the distance {output.wasserstein.item():.3f}")
    return output.loss.item()


if __name__ == "__main__":
    main()
