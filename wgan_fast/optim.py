"""Optimizers for Wasserstein GANs."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast._checks import (
    FLOATING,
    ArgumentTypeError,
    ArgumentValueError,
    check_flag,
    check_integer,
    check_number,
    check_weights,
)
from wgan_fast._library import operators, register_fake
from wgan_fast._torch import local_shard
from wgan_fast.ops import SOME_ON_META, some_on_meta

__all__ = ["RMSprop", "lazy_adam_settings"]

#: Options of torch.optim.RMSprop that are not implemented here.
_REFUSED = ("momentum", "centered", "differentiable")


def lazy_adam_settings(lr: float, betas: tuple[float, float], every: int) -> dict[str, Any]:
    r"""Adam's settings for lazy regularisation with updates of its own, one after every ``every`` updates of the loss.

    .. math:: c = \frac{\mathrm{every}}{\mathrm{every} + 1}, \qquad
              \mathrm{lr}' = c \, \mathrm{lr}, \qquad \beta_1' = \beta_1^c, \qquad \beta_2' = \beta_2^c

    The optimizer then makes ``every + 1`` updates where it made ``every``: in these it moves as far and forgets as much
    as before. Multiply the penalty's weight by ``every``. A penalty that is added to the loss of every ``every``-th
    update, as :class:`~wgan_fast.step.CriticStep` does it, makes no further updates and needs no such settings.

    Args:
        lr: the learning rate without regularisation, at least 0.
        betas: Adam's decays without regularisation, from 0 to below 1.
        every: updates of the loss for each update of the penalty, at least 1.

    Returns:
        ``{"lr": ..., "betas": ...}``, arguments of ``torch.optim.Adam``.

    Raises:
        TypeError: ``lr`` or a decay is not a number, ``betas`` not a pair, or ``every`` not an integer.
        ValueError: an argument is out of range.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020, appendix B, "Lazy
    regularization".

    Example:
        >>> critic = torch.nn.Linear(2, 1)
        >>> torch.optim.Adam(critic.parameters(), **lazy_adam_settings(2e-3, (0.0, 0.99), every=16)).defaults["lr"]
        0.0018823529411764706
    """
    check_number("lr", lr, minimum=0.0)
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ArgumentTypeError("betas", f"expected two numbers, got {betas!r}")
    for i, beta in enumerate(betas):
        check_number(f"betas[{i}]", beta, minimum=0.0, below=1.0)
    check_integer("every", every, 1)
    share = every / (every + 1)
    return {"lr": lr * share, "betas": (betas[0] ** share, betas[1] ** share)}


class RMSprop(torch.optim.RMSprop):
    r"""RMSprop followed by weight clipping: one pass over memory, and on a GPU one launch for each group and dtype.

    .. math::
        g &\leftarrow g + \mathrm{weight\_decay} \cdot w \\
        v &\leftarrow \mathrm{alpha} \cdot v + (1 - \mathrm{alpha}) \, g^2 \\
        w &\leftarrow \min(\max(w - \mathrm{lr} \cdot g / (\sqrt{v} + \mathrm{eps}), -\mathrm{clip}), \mathrm{clip})

    The result is that of :class:`torch.optim.RMSprop` followed by :func:`wgan_fast.clip_weights_`. The state is the
    same: either optimizer loads the other's ``state_dict``. 16-bit dtypes are computed in float32 and rounded once.

    Args:
        params: tensors, named tensors, or groups with arguments of their own, as for any optimizer. Tensors of float16,
            bfloat16, float32 and float64, of any memory format and on any devices.
        lr: the learning rate, at least 0; a number, or a tensor of one element. The kernel reads a tensor on the device
            of the parameters, so that a captured CUDA graph follows its changes.
        alpha: decay of the running average of squared gradients, from 0 to 1.
        eps: added to the root, at least 0.
        clip: bound of the weights, at least 0, rounded to the dtype of each parameter; None: no clipping. Parameters
            without a gradient are not clipped.
        weight_decay: at least 0.
        maximize: ascend instead of descend.

    NaN stays NaN. :meth:`step` can be captured in a CUDA graph, whatever the value of ``capturable``, and does not wait
    for the GPU. With :class:`torch.amp.GradScaler`, the kernel divides the gradients by the scale and skips steps:
    ``.grad`` keeps the scaled gradients. All parameters of a group share one step counter.

    Raises:
        TypeError: a parameter or its gradient is complex, sparse or not of floating point, or an argument is not a
            number.
        ValueError: an argument is out of range, or ``momentum``, ``centered`` or ``differentiable`` is set, in a group
            or in a loaded state. Nothing has been changed then.

    Source: Tieleman and Hinton, "Lecture 6.5 - rmsprop", COURSERA: Neural Networks for Machine Learning, 2012; with
    clipping: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, algorithm 1.
    """

    _step_supports_amp_scaling = True  # torch.amp.GradScaler then sets `grad_scale` and `found_inf` around a step

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 5e-5,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        clip: float | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": 0,
            "alpha": alpha,
            "eps": eps,
            "centered": False,
            "weight_decay": weight_decay,
            "capturable": False,
            "foreach": None,
            "maximize": maximize,
            "differentiable": False,
            "clip": clip,
        }
        _check_group(defaults)
        if isinstance(params, nn.Module):
            raise ArgumentTypeError("params", f"expected tensors, got {type(params).__name__}; pass its .parameters()")
        # RMSprop.__init__ would leave `clip` out of the defaults.
        torch.optim.Optimizer.__init__(self, params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with arguments of their own; missing ones are the optimizer's defaults."""
        if isinstance(param_group, dict):
            _check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        try:
            _check_params(self.param_groups[-1]["params"])
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise

    def state_dict(self) -> dict[str, Any]:
        """As for any optimizer. Each parameter has a step counter of its own, which torch.optim.RMSprop requires."""
        packed = super().state_dict()
        packed["state"] = {
            key: {**state, "step": state["step"].clone()} if "step" in state else state
            for key, state in packed["state"].items()
        }
        return packed

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a loaded, copied or pickled state. A group without ``clip`` keeps the current one."""
        groups = state["param_groups"]
        own = self.__dict__.get("param_groups", [])
        for i, group in enumerate(groups):
            group.setdefault("clip", own[i]["clip"] if i < len(own) else None)
            _check_group(group)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for group in self.param_groups:
            states = [loaded for param in group["params"] if (loaded := self.state.get(param))]
            if states:
                device = states[0]["square_avg"].device
                step = torch.stack([state["step"].to(device, torch.float32) for state in states]).max()
                for parameter_state in states:
                    parameter_state["step"] = step

    def _init_group(  # as torch.optim.RMSprop's, which torch.compile knows
        self,
        group: dict[str, Any],
        params_with_grad: list[Tensor],
        grads: list[Tensor],
        square_avgs: list[Tensor],
        momentum_buffer_list: list[Tensor],
        grad_avgs: list[Tensor],
        state_steps: list[Tensor],
    ) -> bool:
        step = None
        for param in group["params"]:
            grad = param.grad
            if grad is None:
                continue
            if grad.layout is not torch.strided:
                raise ArgumentTypeError("params", f"expected dense gradients, got one of layout {grad.layout}")
            state = self.state[param]
            if not state:
                state["step"] = self._step_of(group, param) if step is None else step
                state["square_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            step = state["step"]
            params_with_grad.append(param)
            grads.append(grad)
            square_avgs.append(state["square_avg"])
        if step is not None:
            state_steps.append(step)
        return False

    def _step_of(self, group: dict[str, Any], param: Tensor) -> Tensor:
        """The group's step counter, on the device, as is ``found_inf`` of a GradScaler."""
        for other in group["params"]:
            if state := self.state.get(other):
                return state["step"]
        return torch.zeros((), dtype=torch.float32, device=param.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Updates the parameters.

        Args:
            closure: evaluates the model again and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        lists = []
        for group in self.param_groups:  # check all groups before anything is written
            _check_group(group)
            _check_has_value(group["lr"], group["params"])
            params: list[Tensor] = []
            grads: list[Tensor] = []
            square_averages: list[Tensor] = []
            steps: list[Tensor] = []
            self._init_group(group, params, grads, square_averages, [], [], steps)
            lists.append((params, grads, square_averages, steps))
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        for group, (params, grads, square_averages, steps) in zip(self.param_groups, lists, strict=True):
            if not params:
                continue
            lr, clip = group["lr"], group["clip"]
            operators(*{param.device for param in params}).rmsprop_(
                [local_shard(param) for param in params],
                [local_shard(grad) for grad in grads],
                [local_shard(average) for average in square_averages],
                # Not on PyTorch's default device, which may be meta.
                lr if isinstance(lr, Tensor) else torch.scalar_tensor(lr, dtype=torch.float64, device="cpu"),
                group["alpha"],
                group["eps"],
                group["weight_decay"],
                group["maximize"],
                inf if clip is None else clip,
                grad_scale,
                found_inf,
            )
            steps[0] += 1 if found_inf is None else (found_inf == 0).to(steps[0].device).view(())
        return loss


@register_fake("rmsprop_")
def _(
    params: list[Tensor],
    grads: list[Tensor],
    square_averages: list[Tensor],
    lr: Tensor,
    alpha: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    clip: float,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    torch._check_value(not some_on_meta(params), lambda: f"params: {SOME_ON_META}")
    for name, number in (("lr", lr), ("grad_scale", grad_scale), ("found_inf", found_inf)):
        torch._check_value(
            number is None or number.device.type != "meta" or params[0].is_meta,
            lambda name=name: f"{name}: it is on meta, which holds no value, and params are not",
        )


def _check_refused(group: Mapping[str, Any]) -> None:
    for name in _REFUSED:
        if group.get(name):  # states of older PyTorch versions lack some
            raise ArgumentValueError(
                name,
                f"not offered here, got {group[name]}; torch.optim.RMSprop has it (a scheduler that cycles "
                "momentum takes cycle_momentum=False)",
            )


def _check_group(group: Mapping[str, Any]) -> None:
    _check_refused(group)
    lr = group["lr"]
    if not isinstance(lr, Tensor):
        check_number("lr", lr, minimum=0.0)
    elif lr.numel() != 1 or lr.dtype not in FLOATING:
        raise ArgumentValueError("lr", f"expected one floating-point number, got {lr.dtype} of shape {tuple(lr.shape)}")
    elif lr.is_cpu and not lr >= 0:  # reading it from a GPU would wait for the device
        raise ArgumentValueError("lr", f"expected a number >= 0, got {lr}")
    for name in ("alpha", "eps", "weight_decay"):
        check_number(name, group[name], minimum=0.0)
    if group["alpha"] > 1:
        raise ArgumentValueError("alpha", f"expected a number <= 1, got {group['alpha']}")
    if group["clip"] is not None:
        check_number("clip", group["clip"], minimum=0.0)
    check_flag("maximize", group.get("maximize", False))


def _check_has_value(lr: float | Tensor, params: Sequence[Tensor]) -> None:
    if isinstance(lr, Tensor) and lr.is_meta and not all(param.is_meta for param in params):
        raise ArgumentValueError(
            "lr",
            "a tensor on meta holds no value; pass a number, or a tensor on the device of the parameters (inside "
            '`torch.device("meta")`, one made with `device=`)',
        )


def _check_params(params: Sequence[Tensor]) -> None:
    for i, param in enumerate(params):
        if param.layout != torch.strided:
            raise ArgumentTypeError(f"params[{i}]", f"expected a dense tensor, got layout {param.layout}")
    check_weights("params", params)
