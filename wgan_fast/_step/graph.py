"""A step as a CUDA graph."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wgan_fast._step.capture import GraphPool, warm_up_stream
from wgan_fast._step.frozen import Frozen
from wgan_fast._step.optimization import Optimization
from wgan_fast._step.synchronisation import watching_synchronisation
from wgan_fast.optim import RMSprop

#: From a step's inputs to its statistics, the gradients of the parameters, and the number of samples.
Differentiate = Callable[..., tuple[Tensor, list[Tensor | None], int]]


class CaptureError(RuntimeError):
    """A step cannot be captured in a CUDA graph, or the compiler refuses it."""


class GraphError(CaptureError):
    """A step cannot be captured in a CUDA graph."""


def obstacle_to_graph(optimization: Optimization) -> str | None:
    """Why no CUDA graph can hold an update, or None if one can."""
    if optimization.device.type != "cuda":
        return f"the parameters are on {optimization.device}"
    optimizer = optimization.inner
    if not isinstance(optimizer, RMSprop) and any(g.get("capturable") is False for g in optimizer.param_groups):
        return f"the optimizer {type(optimizer).__name__} was made without capturable=True"
    if not optimization.skips_on_device:
        return (
            f"the optimizer {type(optimizer).__name__} cannot skip an update on the device, as PyTorch's optimizers "
            "with fused=True can"
        )
    return None


def run_inside_a_capture(differentiate: Differentiate, optimization: Optimization, inputs: tuple[Any, ...]) -> Tensor:
    """Runs a step while the caller captures a CUDA graph, which records it.

    Raises:
        CaptureError: such a graph would not do what the step does. Nothing of the step has been changed then.
    """
    advice = "; end the capture before the step, which captures a graph of its own"
    obstacle = obstacle_to_graph(optimization)
    if obstacle is not None:
        raise CaptureError(f"a step inside a CUDA graph capture: {obstacle}{advice}")
    group = optimization.process_group
    if group is not None and "nccl" not in torch.distributed.get_backend_config(group):
        raise CaptureError(f"a step inside a CUDA graph capture: the process group is not one of NCCL{advice}")
    optimizer = optimization.inner
    state = optimizer.state
    scaler = optimization.scaler
    no_state = CaptureError(
        "a step inside a CUDA graph capture: the optimizer or the scaler has no state yet, and each replay of the "
        "graph would reset it; call the step at least once before the capture"
    )
    stateless = isinstance(optimizer, torch.optim.SGD) and not any(
        group["momentum"] for group in optimizer.param_groups
    )
    if (not state and not stateless) or (scaler is not None and scaler._scale is None):
        raise no_state
    known = {parameter: set(values) for parameter, values in state.items()}
    statistics = optimization.apply(*differentiate(*inputs))
    made = [
        (parameter, name) for parameter, values in state.items() for name in values.keys() - known.get(parameter, ())
    ]
    for parameter, name in made:
        del state[parameter][name]
    if made:
        raise no_state
    return statistics


class _Captured(NamedTuple):
    graphs: list[Any]  #: one; with a process group two, between which the processes sum ``found``
    inputs: list[Tensor]
    found: Tensor
    gradients: list[tuple[Tensor, Tensor | None]]
    statistics: Tensor
    addresses: list[int]


class GraphRunner:
    """Runs the first steps without a graph, on a side stream, which warms up libraries and caches. Captures the next
    step, and replays it from then on. Each of these steps is an update of the training; none is run for the capture
    alone.

    No graph contains a collective of processes. So one process may capture while another replays, as after unequal last
    batches of an epoch, and nothing keeps a process group alive.
    """

    WARM_UP = 3  # as PyTorch's notes on CUDA graphs ask for

    def __init__(
        self,
        differentiate: Differentiate,
        optimization: Optimization,
        frozen: Frozen,
        pool: GraphPool,
        before_warm_up: int = 0,
    ) -> None:
        """``before_warm_up``: the first calls, whose kernels are not those to be captured."""
        self._differentiate, self._optimization = differentiate, optimization
        self._frozen, self._pool = frozen, pool
        self._warm = -before_warm_up
        self._synchronisation: str | None = None
        self._captured: _Captured | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        captured = self._captured
        if captured is not None and captured.addresses != self._frozen.addresses():
            captured = self._captured = None
            self._warm = 0
        if self._warm < self.WARM_UP:
            return self._warm_up(tensors)
        if captured is None:
            self._captured = captured = self._capture(tensors)
        else:
            for held, tensor in zip(captured.inputs, tensors, strict=True):
                held.copy_(tensor.detach())  # or `held` would collect the history of every input
            self._optimization.count_replay()
        captured.graphs[0].replay()
        if len(captured.graphs) > 1:
            self._optimization.all_reduce(captured.found)
            captured.graphs[1].replay()
        for parameter, gradient in captured.gradients:  # the graph of other inputs may have set its own
            parameter.grad = gradient
        return captured.statistics.clone()

    def _warm_up(self, tensors: tuple[Tensor, ...]) -> Tensor:
        # As a capture gets them: code is compiled for strides and requires_grad, and must not be in a capture.
        tensors = tuple(tensor.detach().clone() for tensor in tensors)
        current = torch.cuda.current_stream(self._optimization.device)
        stream = warm_up_stream(current)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            with watching_synchronisation() as in_gradients:
                found = self._optimization.collect(*self._differentiate(*tensors))
            self._optimization.all_reduce(found)
            # An update without momentum waits for the device; it cannot be the last one.
            most = self.WARM_UP if self._optimization.has_momentum() else self.WARM_UP - 1
            with watching_synchronisation() as in_update:
                statistics = self._optimization.update(found)
        current.wait_stream(stream)
        self._synchronisation = next(iter([*in_gradients, *in_update]), None)
        self._warm = min(self._warm + 1, most)
        return statistics

    def _capture(self, tensors: tuple[Tensor, ...]) -> _Captured:
        inputs = [tensor.detach().clone() for tensor in tensors]
        optimization, parameters = self._optimization, self._optimization.parameters(frozen=True)
        graphs = []
        try:
            if self._synchronisation is not None:
                raise RuntimeError(self._synchronisation)
            with self._pool.capturing(optimization.generators) as graph:
                statistics = found = optimization.collect(*self._differentiate(*inputs))
                if optimization.process_group is None:
                    statistics = optimization.update(found)
            graphs.append(graph)
            if optimization.process_group is not None:
                with self._pool.capturing(optimization.generators) as graph:
                    statistics = optimization.update(found)
                graphs.append(graph)
        except BaseException as error:
            for parameter in parameters:
                parameter.grad = None  # the memory of the capture was never written
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            raise GraphError(f"the step cannot be captured in a CUDA graph, take backend='eager': {error}") from error
        gradients = [(parameter, parameter.grad) for parameter in parameters]
        return _Captured(graphs, inputs, found, gradients, statistics, self._frozen.addresses())
