"""A LightningModule with manual optimisation. The loss is a module, so that DDP reduces the penalty's gradients too."""

import lightning
import torch
from plain_loop import mlp, ring
from torch.utils.data import DataLoader, TensorDataset

from wgan_fast import CriticLoss, generator_loss


class WGAN(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = mlp(16, 2)
        self.critic_loss = CriticLoss(mlp(2, 1))

    def forward(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return self.critic_loss(real, fake).loss

    def training_step(self, batch: list[torch.Tensor], index: int) -> None:
        (real,) = batch
        c_adam, g_adam = self.optimizers()
        latent = torch.randn(len(real), 16, device=self.device)
        loss = self(real, self.generator(latent).detach())
        c_adam.zero_grad()
        self.manual_backward(loss)
        c_adam.step()
        if index % 5 == 4:
            self.toggle_optimizer(g_adam)
            g_loss = generator_loss(self.critic_loss.critic(self.generator(latent)))
            g_adam.zero_grad()
            self.manual_backward(g_loss)
            g_adam.step()
            self.untoggle_optimizer(g_adam)
        self.log("critic_loss", loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        networks = (self.critic_loss, self.generator)
        return [torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.9)) for network in networks]


def main(steps: int = 5000, devices: int = 1, folder: str = "runs/lightning") -> float:
    data = DataLoader(TensorDataset(ring(64 * 512)), batch_size=256, shuffle=True)
    strategy = "ddp_find_unused_parameters_true" if devices > 1 else "auto"
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", devices=devices, strategy=strategy, default_root_dir=folder, logger=False
    )
    trainer.fit(WGAN(), data)
    return trainer.callback_metrics["critic_loss"].item()


if __name__ == "__main__":
    main()
