"""Accelerate: CriticLoss is prepared like any module. Start with `accelerate launch accelerate_loop.py`."""

import torch
from accelerate import Accelerator
from plain_loop import mlp, ring

from wgan_fast import CriticLoss, generator_loss


def main(steps: int = 1000) -> float:
    accelerator = Accelerator(cpu=True)
    generator, loss = mlp(16, 2), CriticLoss(mlp(2, 1))
    g_adam, c_adam = (torch.optim.Adam(m.parameters(), lr=1e-4, betas=(0.5, 0.9)) for m in (generator, loss))
    generator, loss, g_adam, c_adam = accelerator.prepare(generator, loss, g_adam, c_adam)
    for step in range(steps):
        fake = generator(torch.randn(256, 16, device=accelerator.device)).detach()
        output = loss(ring(256).to(accelerator.device), fake)
        c_adam.zero_grad()
        accelerator.backward(output.loss)
        c_adam.step()
        if step % 5 == 4:
            critic = accelerator.unwrap_model(loss).critic
            g_loss = generator_loss(critic(generator(torch.randn(256, 16, device=accelerator.device))))
            g_adam.zero_grad()
            accelerator.backward(g_loss)
            g_adam.step()
    return output.loss.item()


if __name__ == "__main__":
    main()
