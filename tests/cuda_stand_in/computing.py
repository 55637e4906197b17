"""Makes PyTorch's CUDA operators compute under the stand-in, which does not run their kernels. Each operator launches
its kernels as usual, and a CPU kernel writes the result into its memory. Under capture both become part of the graph,
so each replay computes again. `pytest -p computing` installs it; tests written for a GPU then run under the stand-in.

Random numbers are a function of the generator's seed and offset, as on a GPU: equal states give equal numbers, captured
or not.
"""

import ctypes
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from stand_in import library
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Operator = Any  # torch._ops.OpOverload
HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

#: They compute nothing, or what they copy to the host is there already.
LEFT_ALONE = {
    "aten::empty.memory_format",
    "aten::empty_strided",
    "aten::_local_scalar_dense",
    "aten::record_stream",
    "aten::resize_",
    "aten::set_",
    "aten::set_.source_Storage",
    "aten::set_.source_Storage_storage_offset",
    "aten::set_.source_Tensor",
}
#: Their result's size is a number that a kernel computes.
OF_UNKNOWN_SIZE = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::repeat_interleave.Tensor"}
#: From Python they take a number in the place of a tensor, which keeps its precision.
TAKES_NUMBERS = {f"aten::{name}" for name in ("add", "sub", "mul", "div", "floor_divide")}
RANDOM = {"aten::native_dropout"}  # and what takes a generator
OFFSET_OF_A_DRAW = 4  # what a random kernel adds to its generator's offset, for up to a million numbers


def host_view(value: Any) -> Any:
    """For a tensor of a device a CPU tensor of the same memory; the CPU for a device; other values unchanged. A view
    keeps neither the tensor nor its history alive.
    """
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if not isinstance(value, Tensor):
        return value
    if value.device.type != "cuda":
        return value.detach()
    if value._is_zerotensor():  # it has no memory
        return torch.zeros(value.shape, dtype=value.dtype)
    storage = value.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty(value.shape, dtype=value.dtype)
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    flat = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=value.dtype).set_(flat, value.storage_offset(), value.shape, value.stride())


def read_at_launch(value: Any) -> Any:
    """As :func:`host_view`, for what a kernel reads: numbers of the host become arguments when it is launched."""
    view = host_view(value)
    return view.clone() if isinstance(value, Tensor) and value.device.type == "cpu" else view


def copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def write(targets: Any, sources: Any) -> None:
    for target, source in zip(tree_leaves(targets), tree_leaves(sources), strict=True):
        # Either kernel leaves out what only a backward pass of its own would need.
        if isinstance(target, Tensor) and (target.shape == source.shape or min(target.numel(), source.numel()) > 0):
            target.copy_(source)


def device_of(values: list[Any]) -> torch.device:
    for value in values:
        if isinstance(value, Tensor) and value.device.type == "cuda":
            return value.device
    for value in values:
        if isinstance(value, torch.device) and value.type == "cuda" and value.index is not None:
            return value
    return torch.device("cuda", torch.cuda.current_device())


class Draws:
    """The random state of each draw."""

    def __init__(self) -> None:
        self.of_capture: Counter[tuple[int, int]] = Counter()

    def seed(self, generator: torch.Generator, capture: int) -> Callable[[], int]:
        """A function that gives the seed of this draw on the host, when it happens."""
        if not capture:
            seed = hash((generator.initial_seed(), generator.get_offset()))
            return lambda: seed
        key = (capture, id(generator))
        position = self.of_capture[key]
        self.of_capture[key] += 1

        def at_replay() -> int:  # the offset has moved on by all draws of the graph
            offset = generator.get_offset() - OFFSET_OF_A_DRAW * (self.of_capture[key] - position)
            return hash((generator.initial_seed(), offset))

        return at_replay


draws = Draws()
kept: list[Any] = []  # callbacks of graphs
failures: list[Exception] = []  # of these callbacks


def capture_of(stream: int) -> int:
    """The number of the capture that the stream is part of, or 0."""
    status, number = ctypes.c_int(), ctypes.c_ulonglong()
    library.cudaStreamGetCaptureInfo(
        ctypes.c_void_p(stream), ctypes.byref(status), ctypes.byref(number), None, None, None, None
    )
    return number.value if status.value == 1 else 0


def put(function: Callable[[], None], stream: int, capture: int) -> None:
    """Calls it now, or whenever the graph under capture comes to this point."""
    if not capture:
        function()
        return

    def call(_: Any) -> None:
        try:
            with torch.no_grad(), torch._C.DisableTorchFunction():
                function()
        except Exception as error:  # a callback from C cannot raise it
            failures.append(error)

    callback = HostFunction(call)
    kept.append(callback)
    library.cudaLaunchHostFunc(ctypes.c_void_p(stream), callback, None)


def implementation(operator: Operator, kernel: Any) -> Callable[..., Any]:
    name = operator.name()
    arguments = operator._schema.arguments
    written = {argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write}
    takes_generator = any(str(argument.type) == "Optional[Generator]" for argument in arguments)

    def implement(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        values = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
        leaves = tree_leaves([*values.values()])
        device = device_of(leaves)
        with torch.no_grad(), torch._C.DisableTorchFunction(), torch.cuda.device(device):
            stream = torch.cuda.current_stream().cuda_stream
            capture = capture_of(stream)
            seed = None
            if takes_generator or name in RANDOM:
                generator = values.get("generator") or torch.cuda.default_generators[device.index]
                seed = draws.seed(generator, capture)
            host: dict[str, Any] = {}
            viewed = {
                key: tree_map(host_view if key in written or name == "aten::copy_" else read_at_launch, value)
                for key, value in values.items()
            }
            inputs = with_tensors(operator, viewed, even_if_taken=False)

            def before() -> None:
                host["inputs"] = copies = tree_map(copied, inputs)
                if name.startswith("aten::log_sigmoid_backward"):  # the buffer is the CPU kernel's alone
                    copies["buffer"] = copies["self"].abs().neg().exp()
                if seed is None:
                    host["result"] = operator(**copies)
                    return
                if takes_generator:
                    copies["generator"] = None  # the default one
                state = torch.default_generator.get_state()
                torch.default_generator.manual_seed(seed())
                host["result"] = operator(**copies)
                torch.default_generator.set_state(state)

            if name in OF_UNKNOWN_SIZE:
                before()
                return tree_map(lambda out: out.to(device), host["result"])
            put(before, stream, capture)
            result = kernel.call_boxed(keyset, **with_tensors(operator, values))
            changed = {key: tree_map(host_view, values[key]) for key in written if key in values}
            outputs = tree_map(host_view, result)

            def after() -> None:
                for key, targets in changed.items():
                    write(targets, host["inputs"][key])
                write(outputs, host["result"])

            put(after, stream, capture)
            if not capture and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
                return host["result"]  # a number, which was read on the host
            return result

    return implement


def with_tensors(operator: Operator, values: dict[str, Any], even_if_taken: bool = True) -> dict[str, Any]:
    """Numbers in the place of a tensor become tensors, of a type that does not change the result's."""
    others = [value for value in values.values() if isinstance(value, Tensor)]
    if not others or (not even_if_taken and operator._schema.name.removesuffix("_") in TAKES_NUMBERS):
        return values

    def converted(argument: Any) -> Any:
        value = values[argument.name]
        if str(argument.type) != "Tensor" or isinstance(value, Tensor):
            return value
        return torch.tensor(value, dtype=torch.result_type(others[0], value))

    return {argument.name: converted(argument) for argument in operator._schema.arguments if argument.name in values}


def is_view(operator: Operator) -> bool:
    return any(out.alias_info and not out.alias_info.is_write for out in operator._schema.returns)


installed = torch.library.Library("aten", "IMPL")


def install() -> None:
    names = torch._C._dispatch_get_registrations_for_dispatch_key("CUDA")
    for name in itertools.chain(names, ["aten::copy_"]):
        namespace, _, rest = name.partition("::")
        if namespace != "aten" or name in LEFT_ALONE:
            continue
        packet, _, overload = rest.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        if is_view(operator):
            continue
        kernel = torch.library.get_kernel(operator, "CUDA")
        installed.impl(rest, implementation(operator, kernel), "CUDA", with_keyset=True, allow_override=True)


torch.backends.cudnn.enabled = False  # it would look for a GPU by itself
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
    install()


@pytest.fixture(autouse=True)
def _every_kernel_is_in_order() -> Iterator[None]:
    """No replay has failed, and nothing was written outside of a block of memory. Each tensor is a block with
    PYTORCH_NO_CUDA_MEMORY_CACHING=1.
    """
    yield
    assert not failures
    assert library.cuda_stand_in_overruns() == 0
