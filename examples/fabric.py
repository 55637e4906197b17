"""Lightning Fabric: CriticLoss is set up with its optimizer like any module."""

import torch
from lightning.fabric import Fabric
from plain_loop import mlp, ring

from wgan_fast import CriticLoss, generator_loss


def main(steps: int = 1000, devices: int = 1) -> float:
    fabric = Fabric(accelerator="cpu", devices=devices)
    fabric.launch()
    generator, loss = mlp(16, 2), CriticLoss(mlp(2, 1))
    g_adam, c_adam = (torch.optim.Adam(m.parameters(), lr=1e-4, betas=(0.5, 0.9)) for m in (generator, loss))
    generator, g_adam = fabric.setup(generator, g_adam)
    loss, c_adam = fabric.setup(loss, c_adam)
    for step in range(steps):
        fake = generator(torch.randn(256, 16, device=fabric.device)).detach()
        output = loss(ring(256).to(fabric.device), fake)
        c_adam.zero_grad()
        fabric.backward(output.loss)
        c_adam.step()
        if step % 5 == 4:
            g_loss = generator_loss(loss.module.critic(generator(torch.randn(256, 16, device=fabric.device))))
            g_adam.zero_grad()
            fabric.backward(g_loss)
            g_adam.step()
    return output.loss.item()


if __name__ == "__main__":
    main()
