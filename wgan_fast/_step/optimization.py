"""The application of gradients: all-reduce, check for non-finite numbers, the optimizer's step, clipping of weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from wgan_fast._checks import ArgumentTypeError, ArgumentValueError, accumulate_dtype, check_number, check_scaler
from wgan_fast._library import extension, operators
from wgan_fast._torch import warn_user
from wgan_fast.ops import clip_weights_


class Optimization:
    """Applies gradients to the optimizer's parameters.

    Args:
        optimizer: any ``torch.optim.Optimizer`` but LBFGS, also as Lightning, Fabric and Accelerate wrap it.
        clip: bound that the weights are clipped to after each update; None: no clipping.
        scaler: the GradScaler that the loss was scaled with, or None.
        process_group: the processes whose gradients are averaged, weighted by their numbers of samples; or None.

    An update with a non-finite gradient is skipped, in all processes of the group.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        clip: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ArgumentTypeError("optimizer", f"expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if clip is not None:
            check_number("clip", clip, minimum=0.0)
        check_scaler("scaler", scaler)
        if process_group is not None and not isinstance(process_group, dist.ProcessGroup):
            reason = ": this process is no member of it" if process_group is dist.GroupMember.NON_GROUP_MEMBER else ""
            raise ArgumentTypeError(
                "process_group", f"expected a ProcessGroup, got {type(process_group).__name__}{reason}"
            )
        if _own_scaler(optimizer) is not None:
            raise ArgumentTypeError(
                "optimizer",
                "its wrapper unscales gradients, and a step gives it unscaled ones; take the optimizer inside of it, "
                "optimizer.optimizer, and pass its GradScaler as scaler=",
            )
        self.optimizer = optimizer
        self.inner = _unwrapped(optimizer)  #: computes the update
        self.clip = clip
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.process_group = process_group
        if isinstance(self.inner, torch.optim.LBFGS):
            raise ArgumentTypeError(
                "optimizer", "LBFGS evaluates the loss by itself, several times in a step; take another"
            )
        devices = {parameter.device for parameter in self.parameters(frozen=True)}
        if len(devices) != 1:
            raise ArgumentValueError("optimizer", f"expected parameters on one device, got {sorted(map(str, devices))}")
        (self.device,) = devices
        if any(hasattr(parameter, "to_local") for parameter in self.parameters(frozen=True)):
            raise ArgumentTypeError(
                "optimizer",
                "its parameters are sharded; shard a CriticLoss and call its backward, as docs/step.md does",
            )
        if any(parameter.is_complex() for parameter in self.parameters(frozen=True)):
            if clip is not None:
                raise ArgumentTypeError("clip", "complex weights have no order to clip by; leave it out")
            if self.scaler is not None:
                raise ArgumentTypeError(
                    "scaler", "PyTorch's GradScaler cannot unscale complex gradients; leave it out, or take bfloat16"
                )
        self._fuses = self.device.type == "cpu" and _is_open_adam(self.inner)
        self.skipped = SkippedUpdates(self.device)
        #: Random generators that the loss draws from, other than PyTorch's default ones.
        self.generators: list[torch.Generator] = []

    def check_updates(self) -> None:
        """Refuses a call inside of Accelerate's ``accumulate()`` that makes no update: its gradients would be lost."""
        if not getattr(getattr(self.optimizer, "gradient_state", None), "sync_gradients", True):
            raise ArgumentValueError(
                "optimizer",
                "Accelerate accumulates gradients here, and a step makes a whole update; to accumulate, prepare a "
                "CriticLoss, and call accelerator.backward and the optimizer",
            )

    def parameters(self, *, frozen: bool = False) -> list[Tensor]:
        """The optimizer's parameters, without those that are frozen unless ``frozen``."""
        parameters = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        return [parameter for parameter in parameters if frozen or parameter.requires_grad]

    def _fuse(self) -> None:
        """Selects PyTorch's fused Adam: the same numbers up to rounding, and the same state. PyTorch's default on a CPU
        takes a dozen passes over each parameter. Called before each update, as ``load_state_dict`` resets the choice,
        and not before the first, so that an error leaves the optimizer as it was.
        """
        for setting in (self.inner.defaults, *self.inner.param_groups):
            setting["fused"] = True
        self.inner._step_supports_amp_scaling = True  # type: ignore[attr-defined]  # as its constructor would

    @property
    def skips_on_device(self) -> bool:
        """Whether the optimizer can skip an update on the device, without a synchronisation with the host."""
        if getattr(self.inner, "_step_supports_amp_scaling", False):
            return True
        # A copy of one of PyTorch's lacks the attribute.
        of_pytorch = type(self.inner).__module__.startswith("torch.optim.")
        return of_pytorch and all(group.get("fused") for group in self.inner.param_groups)

    def has_momentum(self) -> bool:
        """False for SGD before its first step: fused SGD would keep uninitialised momentum where it skips that step."""
        return not isinstance(self.inner, torch.optim.SGD) or all(
            group["momentum"] == 0 or "momentum_buffer" in self.optimizer.state.get(parameter, ())
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        )

    def apply(self, statistics: Tensor, gradients: Sequence[Tensor | None], samples: int) -> Tensor:
        """One update. Returns the statistics, averaged over the samples of all processes."""
        found = self.collect(statistics, gradients, samples)
        self.all_reduce(found)
        return self.update(found)

    @torch.no_grad()
    def collect(self, statistics: Tensor, gradients: Sequence[Tensor | None], samples: int) -> Tensor:
        """Sets the gradients. Returns what the processes must sum, or the statistics where there is no group."""
        parameters = self.parameters()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return statistics if self.process_group is None else _flattened(parameters, statistics, samples)

    def all_reduce(self, found: Tensor) -> None:
        if self.process_group is not None:
            dist.all_reduce(found, group=self.process_group)

    @torch.no_grad()
    def update(self, found: Tensor) -> Tensor:
        """The update, from what was collected and summed. Returns the statistics."""
        parameters = self.parameters()
        statistics = found if self.process_group is None else _average(parameters, found)
        if self._fuses:
            self._fuse()
        self.skipped.count(self._step_optimizer([p.grad for p in parameters if p.grad is not None]))
        if self.clip is not None:
            clip_weights_(parameters, self.clip)
        return statistics

    def count_replay(self) -> None:
        """Tells Lightning's wrapper of an update that did not call it; it counts ``trainer.global_step``."""
        for name in ("_on_before_step", "_on_after_step"):
            if (notice := getattr(self.optimizer, name, None)) is not None:
                notice()

    def _step_optimizer(self, gradients: list[Tensor]) -> Tensor:
        """Steps the optimizer unless a gradient is not finite; returns whether one is, as 0 or 1 on the device."""
        if self.scaler is not None:
            try:
                self.scaler.unscale_(self.optimizer)
                found_inf = torch.stack(list(self.scaler._found_inf_per_device(self.optimizer).values())).amax(0)
                if self.skips_on_device and not self.has_momentum() and found_inf.item():
                    self.scaler.update()
                    return found_inf
                self.scaler.step(self.optimizer)
                self.scaler.update()
                return found_inf
            except BaseException:
                self.scaler._per_optimizer_states.pop(
                    id(self.optimizer), None
                )  # a GradScaler refuses the next step otherwise
                raise
        numbers = [_real(gradient.coalesce().values() if gradient.is_sparse else gradient) for gradient in gradients]
        found_inf = operators(self.device).nonfinite(numbers) if numbers else torch.zeros((), device=self.device)
        if self.skips_on_device and self.has_momentum():
            optimizer: Any = self.inner
            optimizer.grad_scale, optimizer.found_inf = None, found_inf
            try:
                self.optimizer.step()
            finally:
                del optimizer.grad_scale, optimizer.found_inf
        elif not found_inf.item():
            self.optimizer.step()
        return found_inf


def has_hooks(parameter: Tensor) -> bool:
    """Whether a hook waits for the parameter's gradient, on the tensor or on the node that accumulates it."""
    if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
        return True
    return extension is not None and extension.has_hooks(parameter)


def _real(tensor: Tensor) -> Tensor:
    """A complex tensor as a view of real numbers (of a copy, if it is conjugated lazily); others unchanged."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside of the wrappers of Lightning, Fabric and Accelerate, which computes the update."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer


def _own_scaler(optimizer: torch.optim.Optimizer) -> Any:
    """The enabled GradScaler that a wrapper's step uses, or None."""
    strategy = getattr(optimizer, "_strategy", None)
    precision = getattr(strategy, "precision_plugin", None) or getattr(strategy, "precision", None)
    scaler = getattr(optimizer, "scaler", None) or getattr(precision, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _is_open_adam(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is an Adam or AdamW with neither ``foreach`` nor ``fused`` set, which fused Adam can replace: it takes
    no complex parameters.
    """
    if any(parameter.is_complex() for group in optimizer.param_groups for parameter in group["params"]):
        return False
    return type(optimizer) in (torch.optim.Adam, torch.optim.AdamW) and not any(
        any(setting[name] is not None for name in ("foreach", "fused"))
        or setting["differentiable"]
        or any(isinstance(beta, Tensor) for beta in setting["betas"])
        for setting in (optimizer.defaults, *optimizer.param_groups)
    )


def _flattened(parameters: list[Tensor], statistics: Tensor, samples: int) -> Tensor:
    """Gradients and statistics, times the number of samples, and that number, in one buffer."""
    for parameter in parameters:
        if parameter.grad is None:  # the buffer must have the same layout in all processes
            parameter.grad = torch.zeros_like(parameter)
        elif parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()
        if parameter.is_complex():
            parameter.grad = parameter.grad.resolve_conj()
    gradients = _real_gradients(parameters)
    dtypes = [statistics.dtype, *(accumulate_dtype(gradient.dtype) for gradient in gradients)]
    dtype = max(dtypes, key=lambda dtype: dtype.itemsize)
    pieces = [*gradients, statistics, statistics.new_ones(1)]
    return torch.cat([piece.reshape(-1).to(dtype) for piece in pieces]) * samples


def _average(parameters: list[Tensor], flat: Tensor) -> Tensor:
    """Writes the means of a summed buffer into the gradients. Returns those of the statistics."""
    gradients = _real_gradients(parameters)
    sizes = [gradient.numel() for gradient in gradients]
    *means, statistics, _ = (flat / flat[-1]).split([*sizes, len(flat) - sum(sizes) - 1, 1])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return statistics


def _real_gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [_real(parameter.grad) for parameter in parameters if parameter.grad is not None]


def broadcast(tensors: Sequence[Tensor], process_group: "dist.ProcessGroup") -> None:
    """Copies the tensors of the first process into those of the others."""
    with torch.no_grad():
        for tensor in {id(tensor): tensor for tensor in tensors}.values():
            numbers = tensor.detach().flatten().clone()
            dist.broadcast(
                numbers.view(torch.uint8), group=process_group, group_src=0
            )  # as bytes, which every backend supports
            tensor.copy_(numbers.view_as(tensor))


class SkippedUpdates:
    """Counts skipped updates on the device. The host copies the count asynchronously, and warns when it has grown."""

    EVERY = 16  # steps from one copy on a GPU to the next

    def __init__(self, device: torch.device) -> None:
        self._counter = torch.zeros((), device=device, dtype=torch.float32)
        self._heard = self._steps = 0
        self._message: Tensor | None = None  # on the host
        self._sent: Any = None

    def count(self, found_inf: Tensor) -> None:
        self._counter += found_inf

    def listen(self) -> None:
        """Call it after each step. Warns of updates skipped since the last warning; on a GPU some steps later, when a
        copy of the count has arrived.
        """
        if self._counter.device.type != "cuda":
            self._hear(int(self._counter))
            return
        if self._steps % self.EVERY == 0:
            self._exchange()
        self._steps += 1

    def _exchange(self) -> None:
        if self._message is None:
            self._message = torch.empty_like(self._counter, device="cpu", pin_memory=True)
            self._sent = torch.cuda.Event()
        elif self._sent.query():
            self._hear(int(self._message))
        else:
            return
        self._message.copy_(self._counter, non_blocking=True)
        self._sent.record(torch.cuda.current_stream(self._counter.device))

    def total(self) -> int:
        """The number of skipped updates. Waits for the device."""
        return int(self._counter)

    def _hear(self, total: int) -> None:
        if total > self._heard:
            self._heard = total
            warn_user(f"a gradient was not finite, so the update was skipped; {total} skipped so far", RuntimeWarning)
