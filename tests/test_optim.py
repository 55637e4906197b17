"""RMSprop against torch.optim.RMSprop followed by clamp: numbers, state, errors. Adam's settings for lazy penalties."""

import copy
import io
import pickle
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wgan_fast
from wgan_fast import reference
from wgan_fast.optim import RMSprop, lazy_adam_settings

CLIP = 0.4
ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-12}
Groups = list[dict[str, Any]]


def make_params(device: torch.device, dtype: torch.dtype, seed: int = 0) -> list[nn.Parameter]:
    """Weights of a small critic; one is channels last, one is larger than a thread's chunk."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(3, 4), (), (2, 3, 2, 2), (70_000,), (5, 1, 3, 3), (0, 2)]
    params = [torch.randn(size, generator=generator).to(device, dtype) for size in sizes]
    params[2] = params[2].to(memory_format=torch.channels_last)
    return [nn.Parameter(param) for param in params]


def set_gradients(*lists: list[nn.Parameter], step: int) -> None:
    """Equal gradients for each list; in every third step one parameter has none."""
    for params in lists:
        generator = torch.Generator().manual_seed(step)
        for i, param in enumerate(params):
            grad = torch.randn(param.shape, generator=generator).to(param)
            param.grad = None if (i + step) % 3 == 0 else grad


def torch_step(optimizer: torch.optim.Optimizer, *clips: float | None) -> None:
    """PyTorch's step, then clipping of those weights of each group that have a gradient."""
    optimizer.step()
    with torch.no_grad():
        for group, clip in zip(optimizer.param_groups, clips, strict=True):
            for param in group["params"]:
                if clip is not None and param.grad is not None:
                    param.clamp_(-clip, clip)


def assert_same(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        rounding = ROUNDING[a.dtype]
        torch.testing.assert_close(a, b, rtol=rounding, atol=rounding, equal_nan=True)


def pair(device: torch.device, dtype: torch.dtype, clip: float | None = CLIP, **arguments: Any) -> tuple[Any, ...]:
    """Our optimizer, PyTorch's, and the parameters of both."""
    ours, theirs = make_params(device, dtype), make_params(device, dtype)
    arguments = {"lr": 0.05, **arguments}
    return RMSprop(ours, clip=clip, **arguments), torch.optim.RMSprop(theirs, **arguments), ours, theirs


class TestRMSprop:
    @pytest.mark.parametrize("dtype", ROUNDING, ids=str)
    @pytest.mark.parametrize("foreach", [False, True])
    @pytest.mark.parametrize(
        "arguments",
        [{}, {"weight_decay": 0.1, "maximize": True}, {"alpha": 0.5, "eps": 0.1}, {"clip": None}, {"clip": 0.0}],
        ids=str,
    )
    def test_is_torch_s_followed_by_clamp(
        self, device: torch.device, dtype: torch.dtype, foreach: bool, arguments: dict[str, Any]
    ) -> None:
        optimizer, other, ours, theirs = pair(device, dtype, **arguments)
        other.param_groups[0]["foreach"] = foreach
        clip = optimizer.param_groups[0]["clip"]
        for step in range(6):
            set_gradients(ours, theirs, step=step)
            assert optimizer.step() is None
            torch_step(other, clip)
            assert_same(ours, theirs)
        for a, b in zip(ours, theirs, strict=True):
            averages = optimizer.state[a]["square_avg"], other.state[b]["square_avg"]
            torch.testing.assert_close(*averages, rtol=ROUNDING[dtype], atol=0.0)
            assert averages[0].stride() == averages[1].stride()

    def test_default_arguments(self) -> None:
        group = RMSprop([nn.Parameter(torch.ones(1))]).param_groups[0]
        theirs = torch.optim.RMSprop([nn.Parameter(torch.ones(1))], lr=5e-5).param_groups[0]
        assert {**theirs, "clip": None, "params": group["params"]} == group

    def test_groups(self, device: torch.device) -> None:
        def groups(params: list[nn.Parameter]) -> Groups:
            return [
                {"params": params[:2], "lr": 0.01, "alpha": 0.5},
                {"params": params[2:4], "maximize": True, "eps": 0.1},
                {"params": params[4:], "weight_decay": 0.3},
            ]

        ours, theirs = (make_params(device, torch.float64) for _ in range(2))
        optimizer = RMSprop(groups(ours)[:2], lr=0.03, clip=CLIP)
        optimizer.add_param_group(groups(ours)[2])
        for group, clip in zip(optimizer.param_groups, (CLIP, 0.1, None), strict=True):
            assert group["clip"] == CLIP  # taken from the optimizer
            group["clip"] = clip
        other = torch.optim.RMSprop(groups(theirs), lr=0.03)
        for step in range(4):
            set_gradients(ours, theirs, step=step)
            optimizer.step()
            torch_step(other, CLIP, 0.1, None)
        assert_same(ours, theirs)

    @pytest.mark.parametrize("kind", [float, torch.tensor])
    def test_learning_rate_and_scheduler(self, device: torch.device, kind: Callable[[float], Any]) -> None:
        ours, theirs = (make_params(device, torch.float64) for _ in range(2))
        optimizer, other = RMSprop(ours, lr=kind(0.1), clip=CLIP), torch.optim.RMSprop(theirs, lr=float(kind(0.1)))
        schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, 0.5) for each in (optimizer, other)]
        for step in range(4):
            set_gradients(ours, theirs, step=step)
            optimizer.step()
            torch_step(other, CLIP)
            for scheduler in schedulers:
                scheduler.step()
        assert isinstance(optimizer.param_groups[0]["lr"], Tensor) == (kind is torch.tensor)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # a tensor's rate is of float32

    def test_state_goes_both_ways(self, device: torch.device) -> None:
        optimizer, other, ours, theirs = pair(device, torch.float64)
        for step in range(3):
            set_gradients(ours, theirs, step=step)
            optimizer.step()
            torch_step(other, CLIP)
        buffers = io.BytesIO(), io.BytesIO()
        for each, buffer in zip((optimizer, other), buffers, strict=True):
            torch.save(each.state_dict(), buffer)
            buffer.seek(0)
        saved, others_saved = (torch.load(buffer, weights_only=True) for buffer in buffers)
        assert saved["state"].keys() == others_saved["state"].keys()
        counts = [id(state["step"]) for state in saved["state"].values()]
        assert len(set(counts)) == len(counts), "torch.optim.RMSprop would count a shared step several times"
        optimizer, other = RMSprop(ours, clip=CLIP), torch.optim.RMSprop(theirs)
        optimizer.load_state_dict(others_saved)
        other.load_state_dict(saved)
        assert optimizer.param_groups[0]["clip"] == CLIP and optimizer.param_groups[0]["lr"] == 0.05
        for step in range(3, 6):
            set_gradients(ours, theirs, step=step)
            optimizer.step()
            torch_step(other, CLIP)
            assert_same(ours, theirs)
        assert len({id(state["step"]) for state in optimizer.state.values()}) == 1
        assert optimizer.state[ours[0]]["step"].item() == 3 - 1 + 3  # PyTorch's counts leave out what had no gradient
        assert other.state[theirs[1]]["step"].item() == 3 + 2

    def test_loading_takes_the_clip_that_was_saved(self) -> None:
        saved = RMSprop([nn.Parameter(torch.ones(2))], clip=0.2).state_dict()
        optimizer = RMSprop([nn.Parameter(torch.ones(2))], clip=0.1)
        optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0]["clip"] == 0.2

    def test_state_before_the_first_step(self) -> None:
        params = make_params(torch.device("cpu"), torch.float32)
        saved = torch.optim.RMSprop(params).state_dict()
        saved["state"] = {0: {}}  # as after a gradient was asked for and none was there
        optimizer = RMSprop(params)
        optimizer.load_state_dict(saved)
        set_gradients(params, step=1)
        optimizer.step()
        assert {state["step"].item() for state in optimizer.state.values()} == {1.0}

    def test_saved_state_stands_still(self) -> None:
        param = nn.Parameter(torch.ones(2))
        param.grad = torch.ones(2)
        optimizer = RMSprop([param])
        optimizer.step()
        saved = optimizer.state_dict()
        optimizer.load_state_dict(saved)
        optimizer.step()
        assert saved["state"][0]["step"].item() == 1 and optimizer.state[param]["step"].item() == 2

    @pytest.mark.parametrize("way", ["deepcopy", "pickle"])
    def test_copies_go_on(self, way: str) -> None:
        optimizer, other, ours, theirs = pair(torch.device("cpu"), torch.float64)
        for step in range(4):
            set_gradients(ours, theirs, step=step)
            optimizer.step()
            torch_step(other, CLIP)
            if step == 1:
                optimizer = copy.deepcopy(optimizer) if way == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
                ours = optimizer.param_groups[0]["params"]
        assert_same(ours, theirs)
        assert {state["step"].item() for state in optimizer.state.values()} == {4.0}

    def test_closure_and_hooks(self) -> None:
        param, seen = nn.Parameter(torch.tensor([3.0])), []
        optimizer = RMSprop([param], lr=0.1, clip=10.0)
        optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
        optimizer.register_step_post_hook(lambda *_: seen.append("after"))

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = param.square().sum()
            loss.backward()
            return loss

        assert optimizer.step(closure).item() == 9.0
        assert seen == ["before", "after"] and param.item() == pytest.approx(3.0 - 0.1 / 0.1)

    @pytest.mark.parametrize("unscaled", [False, True])
    def test_gradient_scaler(self, device: torch.device, unscaled: bool) -> None:
        optimizer, other, ours, theirs = pair(device, torch.float32)
        scalers = [torch.amp.GradScaler(device.type, init_scale=48.0) for _ in range(2)]
        for step in range(4):
            set_gradients(ours, theirs, step=step)
            for params in (ours, theirs):
                for param in params:
                    if param.grad is not None:
                        param.grad *= 48.0
                if step == 2:
                    params[3].grad[7] = inf
            before = [param.clone() for param in ours]
            scale = [scaler.scale(torch.ones((), device=device)) for scaler in scalers]
            assert all(value.item() in (48.0, 24.0) for value in scale)
            if unscaled:
                scalers[0].unscale_(optimizer)
            scalers[0].step(optimizer)
            scalers[1].step(other)
            if step == 2:
                assert all(torch.equal(param, was) for param, was in zip(ours, before, strict=True))
            else:
                for param in (param for param in theirs if param.grad is not None):
                    param.data.clamp_(-CLIP, CLIP)
            for scaler in scalers:
                scaler.update()
            assert scalers[0].get_scale() == scalers[1].get_scale()
            assert_same(ours, theirs)
        assert optimizer.state[ours[0]]["step"].item() == 3

    def test_the_fallback_serves(self, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
        monkeypatch.setattr(wgan_fast.optim, "operators", lambda *_: reference)
        optimizer, other, ours, theirs = pair(device, torch.float64, weight_decay=0.1)
        for step in range(3):
            set_gradients(ours, theirs, step=step)
            optimizer.step()
            torch_step(other, CLIP)
        assert_same(ours, theirs)

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated:DeprecationWarning")  # PyTorch's own
    def test_compiled(self) -> None:
        optimizer, other, ours, theirs = pair(torch.device("cpu"), torch.float64)
        step_of = torch.compile(optimizer.step, backend="aot_eager", fullgraph=True)
        for step in (1, 4):
            set_gradients(ours, theirs, step=step)
            step_of()
            torch_step(other, CLIP)
        assert_same(ours, theirs)

    def test_another_default_device(self) -> None:
        params, expected = (make_params(torch.device("cpu"), torch.float32) for _ in range(2))
        set_gradients(params, expected, step=1)
        with torch.device("meta"):
            RMSprop(params, lr=0.1).step()
        RMSprop(expected, lr=0.1).step()
        assert all(map(torch.equal, params, expected))

    def test_meta_and_nothing_to_do(self) -> None:
        param = nn.Parameter(torch.ones(3, device="meta"))
        optimizer = RMSprop([param], clip=0.1)
        optimizer.step()
        assert not optimizer.state
        param.grad = torch.ones_like(param)
        optimizer.step()
        assert optimizer.state[param]["square_avg"].device.type == "meta"

    @pytest.mark.parametrize("fallback", [False, True])
    def test_meta_as_the_default_device(self, monkeypatch: pytest.MonkeyPatch, fallback: bool) -> None:
        optimizer, other, ours, theirs = pair(torch.device("cpu"), torch.float64)
        set_gradients(ours, theirs, step=1)
        if fallback:
            monkeypatch.setattr(wgan_fast.optim, "operators", lambda *_: reference)
        with torch.device("meta"):
            optimizer.step()
        torch_step(other, CLIP)
        assert_same(ours, theirs)
        optimizer.param_groups[0]["lr"] = torch.tensor(0.05, device="meta")
        before = copy.deepcopy((ours, optimizer.state_dict()["state"]))
        with pytest.raises(ValueError, match="^lr: a tensor on meta holds no value; pass a number"):
            optimizer.step()
        assert str((ours, optimizer.state_dict()["state"])) == str(before), "written before the error"

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_captured_step_follows_the_learning_rate(self) -> None:
        optimizer, other, ours, theirs = pair(torch.device("cuda"), torch.float64)
        optimizer.param_groups[0]["lr"] = rate = torch.tensor(0.05, device="cuda", dtype=torch.float64)
        set_gradients(ours, theirs, step=1)
        optimizer.step()
        torch_step(other, CLIP)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            optimizer.step()
        for value in (0.05, 0.01):
            rate.fill_(value)
            other.param_groups[0]["lr"] = value
            graph.replay()
            torch_step(other, CLIP)
        assert_same(ours, theirs)
        assert optimizer.state[ours[0]]["step"].item() == 3


REFUSED = [("momentum", 0.9), ("centered", True), ("differentiable", True)]
PARAM = torch.ones(2)


class TestRefusals:
    @pytest.mark.parametrize(
        ("error", "message", "arguments"),
        [
            (ValueError, "lr: expected", {"lr": -1.0}),
            (ValueError, "lr: expected one", {"lr": torch.ones(2)}),
            (ValueError, "lr: expected a number >= 0", {"lr": torch.tensor(-1.0)}),
            (TypeError, "lr: expected a number", {"lr": "fast"}),
            (ValueError, "alpha: expected", {"alpha": 1.5}),
            (ValueError, "alpha: expected", {"alpha": -0.5}),
            (ValueError, "eps: expected", {"eps": -1e-8}),
            (ValueError, "weight_decay: expected", {"weight_decay": -0.1}),
            (ValueError, "clip: expected", {"clip": -0.1}),
            (ValueError, "clip: expected", {"clip": inf}),
            (TypeError, "clip: expected", {"clip": "0.1"}),
            (TypeError, "maximize: expected", {"maximize": 1}),
            (TypeError, r"params\[0\]: expected float16", {"params": [torch.ones(2, dtype=torch.complex64)]}),
            (TypeError, r"params\[0\]: expected a dense", {"params": [torch.ones(2).to_sparse()]}),
            (ValueError, r"params\[0\]: several", {"params": [torch.ones(1).expand(2)]}),
        ],
    )
    def test_arguments(self, error: type, message: str, arguments: dict[str, Any]) -> None:
        arguments = {"params": [nn.Parameter(PARAM.clone())], **arguments}
        with pytest.raises(error, match=f"^{message}"):
            RMSprop(**arguments)
        optimizer = RMSprop([nn.Parameter(PARAM.clone())])
        with pytest.raises(error, match=f"^{message}"):
            optimizer.add_param_group(arguments)
        assert len(optimizer.param_groups) == 1

    @pytest.mark.parametrize(("name", "value"), REFUSED)
    def test_what_torch_s_has(self, name: str, value: object) -> None:
        params = [nn.Parameter(PARAM.clone())]
        params[0].grad = torch.ones(2)
        with pytest.raises(ValueError, match=f"^{name}: "):
            RMSprop([{"params": params, name: value}])
        with pytest.raises(TypeError, match=name):
            RMSprop(params, **{name: value})
        optimizer = RMSprop(params, lr=0.1)
        optimizer.step()
        before = copy.deepcopy(optimizer.state_dict())
        foreign = torch.optim.RMSprop([nn.Parameter(PARAM.clone())], lr=0.7, **{name: value}).state_dict()
        with pytest.raises(ValueError, match=f"^{name}: "):
            optimizer.load_state_dict(foreign)
        assert str(optimizer.state_dict()) == str(before)
        weights = params[0].detach().clone()
        optimizer.param_groups[0][name] = value  # as OneCycleLR does with a momentum
        with pytest.raises(ValueError, match=f"^{name}: "):
            optimizer.step()
        assert torch.equal(params[0], weights)

    @pytest.mark.parametrize("scheduler", ["CyclicLR", "OneCycleLR"])
    def test_schedulers_that_cycle_momentum(self, scheduler: str) -> None:
        schedulers = torch.optim.lr_scheduler
        for cycle_momentum in (True, False):
            params = [nn.Parameter(PARAM.clone())]
            params[0].grad = torch.ones(2)
            optimizer = RMSprop(params, lr=0.1)
            if scheduler == "CyclicLR":
                schedulers.CyclicLR(optimizer, 0.01, 0.1, cycle_momentum=cycle_momentum)
            else:
                schedulers.OneCycleLR(optimizer, 0.1, total_steps=10, cycle_momentum=cycle_momentum)
            if cycle_momentum:
                with pytest.raises(ValueError, match=r"^momentum: .* cycle_momentum=False"):
                    optimizer.step()
            else:
                optimizer.step()
                assert (params[0] < 1).all()

    def test_sparse_gradients(self) -> None:
        params = [nn.Parameter(PARAM.clone()), nn.Parameter(PARAM.clone())]
        params[0].grad, params[1].grad = torch.ones(2), torch.ones(2).to_sparse()
        optimizer = RMSprop([{"params": [param]} for param in params])
        with pytest.raises(TypeError, match="^params: expected dense gradients"):
            optimizer.step()
        assert torch.equal(params[0], PARAM), "written before the error"


class TestLazyAdamSettings:
    def test_the_numbers_of_stylegan2(self) -> None:
        """Its discriminator: learning rate 0.002, decays 0 and 0.99, regularised after every 16 updates."""
        settings = lazy_adam_settings(0.002, (0.0, 0.99), 16)
        assert settings == {"lr": pytest.approx(0.0018823529), "betas": (0.0, pytest.approx(0.990586, abs=1e-6))}

    @pytest.mark.parametrize("every", [1, 4, 16])
    def test_more_updates_go_as_far_and_forget_as_much(self, every: int) -> None:
        """Adam's steps along constant gradients have the length of the rate; then what is left of them decays."""

        def trained(updates: int, lr: float, betas: tuple[float, float]) -> tuple[float, Tensor]:
            weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
            optimizer = torch.optim.Adam([weight], lr, betas, eps=0.0)
            for _ in range(updates):
                weight.grad = torch.ones_like(weight)
                optimizer.step()
            moved = weight.item()
            state = optimizer.state[weight]
            before = torch.cat([state["exp_avg"], state["exp_avg_sq"]]).clone()
            for _ in range(updates):
                weight.grad = torch.zeros_like(weight)
                optimizer.step()
            return moved, torch.cat([state["exp_avg"], state["exp_avg_sq"]]) / before

        moved, kept = trained(every, 0.01, (0.5, 0.9))
        lazily_moved, lazily_kept = trained(every + 1, **lazy_adam_settings(0.01, (0.5, 0.9), every))
        assert lazily_moved == pytest.approx(moved) and moved == pytest.approx(-0.01 * every)
        torch.testing.assert_close(lazily_kept, kept)

    @pytest.mark.parametrize(
        ("error", "name", "arguments"),
        [
            (ValueError, "lr", (-1.0, (0.0, 0.9), 4)),
            (TypeError, "lr", ("fast", (0.0, 0.9), 4)),
            (TypeError, "betas", (0.1, 0.9, 4)),
            (TypeError, "betas", (0.1, (0.0, 0.9, 0.9), 4)),
            (ValueError, r"betas\[1\]", (0.1, (0.0, 1.0), 4)),
            (ValueError, r"betas\[0\]", (0.1, (-0.5, 0.9), 4)),
            (ValueError, "every", (0.1, (0.0, 0.9), 0)),
            (TypeError, "every", (0.1, (0.0, 0.9), 4.0)),
        ],
    )
    def test_wrong_arguments_are_named(self, error: type, name: str, arguments: tuple[Any, ...]) -> None:
        with pytest.raises(error, match=f"^{name}: expected"):
            lazy_adam_settings(*arguments)
