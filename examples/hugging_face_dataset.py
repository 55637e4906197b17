"""A data set of Hugging Face `datasets` from local files, as images for CriticStep."""

import tempfile
from pathlib import Path

import torch
from datasets import load_dataset
from images import make_networks
from PIL import Image
from torch.utils.data import DataLoader

from wgan_fast import CriticStep, GeneratorStep


def write_images(folder: Path, count: int = 64) -> None:
    """Stands for the pictures that you have."""
    for i in range(count):
        Image.new("RGB", (48, 48), (4 * i % 256, 128, 255 - 4 * i % 256)).save(folder / f"{i}.png")


def to_tensor(rows: dict[str, list[Image.Image]]) -> dict[str, list[torch.Tensor]]:
    sized = (image.convert("RGB").resize((32, 32)) for image in rows["image"])
    pixels = (torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(32, 32, 3) for image in sized)
    return {"image": [pixel.permute(2, 0, 1) / 127.5 - 1 for pixel in pixels]}


def main(steps: int = 100) -> float:
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        data = load_dataset("imagefolder", data_dir=folder, split="train", cache_dir=f"{folder}/cache")
        loader = DataLoader(data.with_transform(to_tensor), batch_size=16, shuffle=True, drop_last=True)
        generator, critic = make_networks(width=16)
        device = next(critic.parameters()).device
        g_adam, c_adam = (torch.optim.Adam(m.parameters(), lr=1e-4, betas=(0.0, 0.9)) for m in (generator, critic))
        critic_step, generator_step = CriticStep(critic, c_adam), GeneratorStep(generator, critic, g_adam)
        done = 0
        while done < steps:
            for batch in loader:
                output = critic_step(batch["image"].to(device), lambda: generator(torch.randn(16, 64, device=device)))
                done += 1
                if done % 5 == 0:
                    generator_step(torch.randn(16, 64, device=device))
        print(f"estimate of the distance {output.wasserstein.item():.3f}")
    return output.loss.item()


if __name__ == "__main__":
    main()
