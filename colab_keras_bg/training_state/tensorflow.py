"""TensorFlow: snapshots that share buffers, iterators as bytes.

Invariant: the values held stay what they were, and nothing here waits for the
disk. A read shares the variable's buffer, and the next assignment, finding it
shared, makes a new one. TensorFlow itself copies at the read what was ever
updated in a few rows only: an embedding under an optimizer without momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "accelerators",
    "apply_random_state",
    "device_memory",
    "enable_determinism",
    "graph_bytes",
    "graph_refusal",
    "is_deterministic",
    "iterator_bytes",
    "random_state",
    "reader",
    "set_iterator_bytes",
    "start_profile",
    "stop_profile",
    "symbolic_batch",
    "trace",
    "traced",
    "value_of",
    "version",
]


def reader(variables: Iterable[Any]) -> Callable[[], list[Any]]:
    """What returns the present values, as tensors that stay what they are.

    Args:
        variables: Keras variables.

    Returns:
        A function; its result are eager tensors, in the order given.
    """
    together: dict[str, list[tuple[int, Any]]] = {}
    reads: list[tuple[list[int], Callable[[], Sequence[Any]]]] = []
    count = 0
    for index, variable in enumerate(variables):
        inner, count = variable.value, index + 1
        if getattr(inner, "handle", None) is None or hasattr(inner, "values"):
            # A distributed variable: one value, reduced if it is on-read.
            reads.append(([index], _alone(inner)))
        else:
            device = together.setdefault(inner.handle.device, [])
            device.append((index, inner))
    for held in together.values():
        reads.append(([i for i, _ in held], _together([v for _, v in held])))

    def read() -> list[Any]:
        values: list[Any] = [None] * count
        for places, several in reads:
            for place, value in zip(places, several(), strict=True):
                values[place] = value
        return values

    return read


def _alone(variable: Any) -> Callable[[], Sequence[Any]]:
    return lambda: [variable.read_value()]


def _together(variables: Sequence[Any]) -> Callable[[], Sequence[Any]]:
    """Reads variables of one device, all in one operation if there is one."""
    import tensorflow as tf
    from tensorflow.python.eager import context, execute

    handles = [variable.handle for variable in variables]
    dtypes = [variable.dtype.as_datatype_enum for variable in variables]

    def one_operation() -> Sequence[Any]:
        values: Sequence[Any] = execute.execute(
            b"_ReadVariablesOp",
            len(handles),
            handles,
            ("N", len(handles), "dtypes", dtypes),
            context.context(),
        )
        return values

    def one_by_one() -> Sequence[Any]:
        return [
            tf.raw_ops.ReadVariableOp(resource=v.handle, dtype=v.dtype)
            for v in variables
        ]

    try:
        one_operation()
    except Exception:  # noqa: BLE001 - an operation that is not public
        return one_by_one
    return one_operation


def value_of(tensor: Any) -> np.ndarray[Any, Any]:
    """The values of an eager tensor, without a copy where possible."""
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError, RuntimeError):
        # bfloat16 and float8 have no buffer format; a GPU tensor has no
        # buffer here.
        return np.asarray(tensor.numpy())


def iterator_bytes(iterator: Any) -> bytes:
    """The state of a `tf.data` iterator.

    Args:
        iterator: A live, not distributed iterator.

    Raises:
        ValueError: If TensorFlow cannot serialise it (stateful functions,
            Python functions); the message is TensorFlow's.
    """
    import tensorflow as tf

    resource = getattr(iterator, "_iterator_resource", None)
    if resource is None:
        raise ValueError(f"a {type(iterator).__name__} has no state to read")
    # As tf.train.Checkpoint does: never a state that is not whole, unless the
    # dataset's owner says so (Keras does for arrays, whose shuffled order is
    # part of the iterator's state).
    fail = tf.data.experimental.ExternalStatePolicy.FAIL
    dataset = getattr(iterator, "_dataset", None)
    policy = (
        dataset.options().experimental_external_state_policy
        if dataset
        else None
    )
    try:
        state = tf.raw_ops.SerializeIterator(
            resource_handle=resource,
            external_state_policy=(fail if policy is None else policy).value,
        )
        return bytes(tf.io.serialize_tensor(state).numpy())
    except tf.errors.OpError as error:
        raise ValueError(_reason(error)) from error


def set_iterator_bytes(iterator: Any, state: bytes) -> None:
    """Puts a `tf.data` iterator where `iterator_bytes` found one."""
    import tensorflow as tf

    tf.raw_ops.DeserializeIterator(
        resource_handle=iterator._iterator_resource,
        serialized=tf.io.parse_tensor(state, tf.variant),
    )


def random_state() -> dict[str, Any]:
    """TensorFlow's own random state: eager op seeds, global generator."""
    from tensorflow.python.eager import context
    from tensorflow.python.ops import stateful_random_ops

    state: dict[str, Any] = {}
    source = getattr(context.context(), "_rng", None)
    if source is not None:
        version, numbers, gauss = source.getstate()
        state["op_seeds"] = [version, list(numbers), gauss]
    generator = getattr(stateful_random_ops, "global_generator", None)
    if generator is not None:
        state["generator"] = [int(n) for n in generator.state.numpy()]
    return state


def apply_random_state(state: Mapping[str, Any]) -> None:
    """Puts back what `random_state` returned."""
    import tensorflow as tf
    from tensorflow.python.eager import context

    source = getattr(context.context(), "_rng", None)
    if source is not None and "op_seeds" in state:
        version, numbers, gauss = state["op_seeds"]
        source.setstate((version, tuple(numbers), gauss))
    if "generator" in state:
        tf.random.get_global_generator().state.assign(state["generator"])


def symbolic_batch(epoch_iterator: Any) -> Any:
    """What a batch looks like, without drawing one."""
    dataset = epoch_iterator._distributed_dataset
    return dataset.element_spec


def graph_bytes(dataset: Any) -> bytes:
    """A dataset's graph, serialized, whatever state it has."""
    import tensorflow as tf

    policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    graph = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor,
        external_state_policy=policy.value,
    )
    return bytes(graph.numpy())


def graph_refusal(dataset: Any) -> str | None:
    """Why the state of a dataset's iterators cannot be saved; None if it can.

    Draws nothing and makes no iterator.
    """
    import tensorflow as tf

    policy = tf.data.experimental.ExternalStatePolicy.FAIL
    try:
        tf.raw_ops.DatasetToGraphV2(
            input_dataset=dataset._variant_tensor,
            external_state_policy=policy.value,
        )
    except tf.errors.OpError as error:
        return _reason(error)
    except AttributeError:
        return f"a {type(dataset).__name__} has no state to read"
    return None


def trace(model: Any, batch: Any) -> Any:
    """Runs the model's `train_step` on symbols, as its first call does.

    Args:
        model: A compiled model.
        batch: What a batch looks like, as specifications.

    Returns:
        The graph.
    """
    import tensorflow as tf

    def step(data: Any) -> Any:
        return model.distribute_strategy.run(model.train_step, args=(data,))

    function = tf.function(step, autograph=False)
    return function.get_concrete_function(batch).graph


def traced(model: Any) -> list[Any]:
    """The graphs of the train function, as far as it was called.

    Empty where it runs eagerly, or is of the user's own making.
    """
    function = getattr(model, "train_function", None)
    cells = getattr(function, "__closure__", None) or ()
    held = [function, *(cell.cell_contents for cell in cells)]
    return [
        concrete.graph
        for item in held
        if hasattr(item, "_list_all_concrete_functions")
        for concrete in item._list_all_concrete_functions()
    ]


def device_memory() -> list[dict[str, int]]:
    """What each GPU has in use, in bytes."""
    import tensorflow as tf

    found = []
    for index in range(len(tf.config.list_logical_devices("GPU"))):
        info = tf.config.experimental.get_memory_info(f"GPU:{index}")
        found.append({"used_bytes": int(info["current"])})
    return found


def accelerators() -> list[str]:
    """The kinds of accelerators that are used, one entry each."""
    import tensorflow as tf

    return [
        tf.config.experimental.get_device_details(device).get(
            "device_name", device.device_type
        )
        for device in tf.config.list_physical_devices()
        if device.device_type != "CPU"
    ]


def is_deterministic() -> bool:
    """Whether `enable_op_determinism` was called."""
    from tensorflow.python.framework import config

    return bool(config.is_op_determinism_enabled())


def enable_determinism() -> None:
    """Makes every operation give the same bits each time, or raise."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def start_profile(folder: str) -> None:
    """Begins to look at what takes how long.

    Args:
        folder: Where the profile goes.
    """
    import tensorflow as tf

    tf.profiler.experimental.start(folder)


def stop_profile() -> None:
    """Writes the profile."""
    import tensorflow as tf

    tf.profiler.experimental.stop()


def version() -> str:
    """TensorFlow's version."""
    import tensorflow as tf

    return str(tf.__version__)


def _reason(error: Any) -> str:
    # "{{function_node ...}} RandomShuffle is stateful. [Op:...] name: "
    said: str = error.message.rpartition("}} ")[2].partition(" [Op:")[0]
    return said.rstrip(".")
