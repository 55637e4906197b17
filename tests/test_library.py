"""The choice between the extension and the reference; the warning; public modules."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import wgan_fast
from wgan_fast import CriticStep, _library, clip_weights_, gradient_penalty, interpolate, ops, reference


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)


def test_fallback_is_announced_once_and_right() -> None:
    result = run("""
        import sys, warnings
        sys.modules["wgan_fast._C"] = None  # as if it had never been compiled
        import torch
        from wgan_fast import clip_weights_, gradient_penalty, interpolate, reference
        critic = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
        real, fake, t = torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.rand(4).double()
        expected = reference.gradient_penalty(critic, real, fake, t=t)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            penalty = gradient_penalty(critic, real, fake, t=t)
            gradient_penalty(critic, real, fake, t=t)
            interpolate(real, fake)
            clip_weights_(critic, 0.1)
        assert len(caught) == 1 and caught[0].category is RuntimeWarning, caught
        assert "reference" in str(caught[0].message) and "wgan_fast.doctor" in str(caught[0].message)
        assert caught[0].filename == "<string>", caught[0].filename
        torch.testing.assert_close(penalty, expected)
        assert max(p.abs().max().item() for p in critic.parameters()) <= 0.1
        try:
            clip_weights_([torch.ones(2), torch.ones(1).expand(2)])
        except ValueError as error:
            assert "module_or_tensors[1]" in str(error)
        else:
            raise AssertionError("overlapping weights were accepted")
        print("right")
    """)
    assert result.stdout == "right\n", result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP is asked for on Linux alone")
def test_extension_uses_threads() -> None:
    assert _library.extension is not None
    assert _library.extension.build_info()["threads"]


def test_an_extension_for_another_torch_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "record", {"torch": "2.11.0+cu130"})
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    assert _library._load() == (None, "it was built for torch 2.11.0+cu130, and this is torch 2.13.0")
    monkeypatch.setattr(_library, "record", {"torch": "2.13.1+cpu"})
    assert _library._load()[0] is _library.extension


@pytest.mark.parametrize(
    ("record", "torch_version", "torch_cuda", "reason"),
    [
        ({"torch": "2.13.0+cu130", "cuda": "13.0"}, "2.13.1+cpu", None, None),
        ({"torch": "2.13.0+cu130", "cuda": "13.0"}, "2.13.0+cu132", "13.2", None),
        (
            {"torch": "2.13.0+cu130", "cuda": "13.0"},
            "2.13.0+cu126",
            "12.6",
            "for CUDA 13.0, and this torch for CUDA 12.6",
        ),
        ({"torch": "2.13.0+cpu", "cuda": None}, "2.13.0+cu126", "12.6", None),
        ({"torch": "2.1.0"}, "2.13.0", None, "it was built for torch 2.1.0, and this is torch 2.13.0"),
    ],
)
def test_which_torch_an_extension_serves(
    record: dict[str, str], torch_version: str, torch_cuda: str | None, reason: str | None
) -> None:
    found = _library.mismatch(record, torch_version, torch_cuda)
    assert (found is None) == (reason is None) and (reason or "") in (found or "")


@pytest.mark.parametrize("held", [["1.9", "1.11", "9.9"], ["1.9", "1.10", "1.11"]])
def test_a_wheel_of_several_extensions(held: list[str], tmp_path: Path) -> None:
    """The package as `make wheels` lays it out, with one extension under several names; 9.9 stands for this torch."""
    package = tmp_path / "wgan_fast"
    source = Path(wgan_fast.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("_C.*", "_build.json", "__pycache__"))
    this = ".".join(torch.__version__.split(".")[:2])
    (extension,) = source.glob("_C.*")
    for minor in held:
        folder = package / "_builds" / f"torch-{minor.replace('9.9', this)}"
        folder.mkdir(parents=True)
        shutil.copy(extension, folder)
        (folder / "_build.json").write_text(json.dumps({"torch": f"{minor.replace('9.9', this)}.0", "failure": None}))
    program = (
        "import wgan_fast._library as l; print(l.record.get('torch'), l.extension and l.extension.__file__, l.failure)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    if "9.9" in held:
        assert result.stdout == f"{this}.0 {package / '_builds' / f'torch-{this}' / extension.name} None\n"
    else:
        told = f"this wheel holds extensions for torch 1.9, 1.10, 1.11, and this is torch {torch.__version__}"
        assert result.stdout == f"None None {told}\n"


def test_the_reason_for_a_failed_build_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "record", {"torch": "2.13.0", "failure": "x.cpp:1: error"})
    assert _library._load() == (None, "it was not compiled when wgan_fast was installed: x.cpp:1: error")


def test_the_reason_for_missing_cuda_kernels_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    _library._announce.cache_clear()
    monkeypatch.setattr(_library, "record", {"cuda_left_out": "they did not compile: x.cu:1: error"})
    monkeypatch.setattr(_library, "_device_types", {"cpu"})
    with pytest.warns(RuntimeWarning, match=r"type cuda \(they did not compile: x.cu:1: error\)"):
        assert _library.operators(torch.device("cuda")) is reference


def test_import_alone_says_nothing() -> None:
    result = run("import sys; sys.modules['wgan_fast._C'] = None; import wgan_fast; print(wgan_fast.__version__)")
    assert result.returncode == 0 and result.stderr == ""


def test_core_needs_no_trainer() -> None:
    result = run("""
        import sys, wgan_fast
        print(*{"wgan_fast.train", "matplotlib", "rich", "typer", "ot", "yaml"} & sys.modules.keys())
    """)
    assert (result.returncode, result.stdout) == (0, "\n"), result.stderr


def test_device_without_kernels() -> None:
    _library._announce.cache_clear()
    with pytest.warns(RuntimeWarning, match="without kernels for the device type xpu"):
        assert _library.operators(torch.device("xpu")) is reference
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _library.operators(torch.device("xpu")) is reference
        assert _library.operators(torch.device("cpu")) is torch.ops.wgan_fast


def test_tracing_in_one_thread_leaves_other_threads_alone() -> None:
    """One thread traces a step for the compiler; another computes a penalty during the critic's forward."""
    points, other = torch.randn(6, 3), nn.Linear(3, 1)
    seen: list[object] = []

    def compute() -> float:
        seen.append(_library.operators(points.device))
        return gradient_penalty(other, points, -points).item()

    class Critic(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if _library.is_traceable():
                seen.append(_library.operators(x.device))
                assert isfinite(pool.submit(compute).result())
            return super().forward(x)

    critic = Critic(3, 1)
    step = CriticStep(critic, torch.optim.Adam(critic.parameters()), backend="compile")
    with ThreadPoolExecutor(1) as pool:
        step(points, -points)
        assert seen == []
        step(points, -points)  # the second step is traced
    assert set(seen[::2]) == {reference} and set(seen[1::2]) == {torch.ops.wgan_fast}
    assert _library.operators(points.device) is torch.ops.wgan_fast


def test_public_modules() -> None:
    """Each module without an underscore is public: `__all__` names it, and it can be used at once, without the packages
    of the extra. The command line is no module to import from.
    """
    result = run("""
        import pkgutil, sys, wgan_fast
        from wgan_fast import *
        assert experiments.NAMES and train.__all__
        modules = {module.name for module in pkgutil.iter_modules(wgan_fast.__path__)}
        public = {name for name in modules - {"cli"} if not name.startswith("_")}
        assert public <= set(wgan_fast.__all__), public - set(wgan_fast.__all__)
        assert all(hasattr(wgan_fast, name) for name in wgan_fast.__all__)
        assert not hasattr(wgan_fast, "nothing")
        print(*{"lightning", "matplotlib", "rich", "typer", "ot", "yaml"} & sys.modules.keys())
    """)
    assert (result.returncode, result.stdout) == (0, "\n"), result.stderr


def test_function_transforms_use_the_reference() -> None:
    real, fake, t = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5)
    per_sample = torch.func.vmap(lambda r, f, s: interpolate(r[None], f[None], s[None])[0])(real, fake, t)
    torch.testing.assert_close(per_sample, reference.interpolate(real, fake, t))
    gradient = torch.func.grad(lambda g: ops.gradient_norm_penalty(g).penalty)(real)
    expected = torch.autograd.grad(ops.gradient_norm_penalty(real.requires_grad_()).penalty, real)[0]
    torch.testing.assert_close(gradient, expected)


def test_penalty_in_function_transforms() -> None:
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    real, fake, t = torch.randn(5, 4).double(), torch.randn(5, 4).double(), torch.rand(5).double()

    def penalty(parameters: dict[str, Tensor]) -> Tensor:
        return gradient_penalty(lambda x: torch.func.functional_call(critic, parameters, x), real, fake, t=t)

    parameters = dict(critic.named_parameters())
    expected = torch.autograd.grad(gradient_penalty(critic, real, fake, t=t), critic[0].weight)[0]
    torch.testing.assert_close(torch.func.grad(penalty)(parameters)["0.weight"], expected, rtol=1e-10, atol=1e-12)
    ensemble = {name: torch.stack([value, 2 * value]) for name, value in parameters.items()}
    both = torch.func.vmap(penalty)(ensemble)
    torch.testing.assert_close(both[0], gradient_penalty(critic, real, fake, t=t), rtol=1e-10, atol=1e-12)
    with pytest.raises(TypeError, match="^critic: expected a Tensor"):
        torch.func.grad(lambda x: gradient_penalty(lambda y: (y,), x, fake, t=t))(real)


def test_inference_mode() -> None:
    with torch.inference_mode():
        weights = torch.ones(3)
        clip_weights_([weights], 0.5)
        assert weights.tolist() == [0.5] * 3
        interpolate(torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"^module_or_tensors\[0\]: an inference tensor"):
        clip_weights_([weights], 0.1)
