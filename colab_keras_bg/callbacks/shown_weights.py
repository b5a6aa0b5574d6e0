"""The weights of a model, as TensorBoard shows them.

Invariant: on the training thread values are only held (see `snapshot`); what
is made of them is made where it is written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal import summaries
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.training_state.snapshot import Snapshots

__all__ = ["Embeddings", "Held", "held_weights", "shown", "write_tables"]

_CONFIG = "projector_config.pbtxt"
_FOLDER = "embeddings"

# Tags, and values that are fetched when they are needed.
Held = list[tuple[str, LazyTensor]]


def held_weights(model: Any) -> Held:
    """The present weights of all layers.

    Args:
        model: A built model.
    """
    weights = [w for layer in model.layers for w in layer.weights]
    keys = [str(index) for index in range(len(weights))]
    taken = Snapshots(dict(zip(keys, weights, strict=True)), model=model).take()
    return [
        (weight.path.replace(":", "_"), taken[key])
        for key, weight in zip(keys, weights, strict=True)
    ]


def shown(held: Held, *, images: bool) -> list[summaries.Value]:
    """What is shown of them.

    Args:
        held: What `held_weights` returned; let go of.
        images: Whether they are shown as images, too.
    """
    found: list[summaries.Value] = []
    for name, tensor in held:
        values = np.asarray(tensor.fetch())
        tensor.release()
        found.append(summaries.histogram(f"{name}/histogram", values))
        image = _as_images(values) if images else None
        if image is not None:
            found.append(summaries.image(f"{name}/image", image))
    return found


class Embeddings:
    """Tables of embeddings, for the projector of TensorBoard."""

    def __init__(
        self, model: Any, metadata: str | Mapping[str, str] | None
    ) -> None:
        """Finds the layers.

        Args:
            model: The model.
            metadata: A file that tells what each row is, or one by the name
                of each layer.

        Raises:
            UsageError: If it names a layer that is none.
        """
        self._model = model
        kind = keras.layers.Embedding
        self._layers = [x for x in model.layers if isinstance(x, kind)]
        names = [layer.name for layer in self._layers]
        if not isinstance(metadata, Mapping):
            metadata = dict.fromkeys(names, metadata) if metadata else {}
        self._metadata = metadata
        unknown = sorted(metadata.keys() - set(names))
        if unknown:
            raise UsageError(
                "Unrecognized `Embedding` layer names passed to `TensorBoard` "
                f"`embeddings_metadata` argument: {', '.join(unknown)}"
            )

    def configure(self, root: Path) -> None:
        """Writes down what the projector is to show.

        Args:
            root: The folder that TensorBoard looks into.
        """
        lines: list[str] = []
        for layer in self._layers:
            tensor = f"{layer.name}/embeddings"
            lines += ["embeddings {", f"  tensor_name: {json.dumps(tensor)}"]
            if layer.name in self._metadata:
                told = json.dumps(self._metadata[layer.name])
                lines.append(f"  metadata_path: {told}")
            lines += [f"  tensor_path: {json.dumps(_table(layer))}", "}"]
        _put(root / _CONFIG, "".join(f"{line}\n" for line in lines))

    def held(self) -> dict[str, LazyTensor]:
        """The present values, by the file that they go to."""
        tables = {_table(layer): layer.embeddings for layer in self._layers}
        return Snapshots(tables, model=self._model).take()


def write_tables(root: Path, held: Mapping[str, LazyTensor]) -> None:
    """Writes the tables, in place of those that are there.

    Args:
        root: The folder that TensorBoard looks into.
        held: What `Embeddings.held` returned.
    """
    for name, tensor in held.items():
        rows = np.asarray(tensor.fetch()).astype(np.float64)
        tensor.release()
        lines = ("\t".join(f"{v:.7g}" for v in row) + "\n" for row in rows)
        _put(root / name, "".join(lines))


def _table(layer: Any) -> str:
    return f"{_FOLDER}/{re.sub('[^A-Za-z0-9_-]', '-', layer.name)}.tsv"


def _put(path: Path, content: str) -> None:
    """A file as a whole, in place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _as_images(values: summaries.Array) -> summaries.Array | None:
    """A weight as images, in the way of Keras; None if it is none."""
    squeezed = np.squeeze(values)
    if squeezed.ndim == 1:
        squeezed = squeezed.reshape(1, -1, 1, 1)
    elif squeezed.ndim == 2:
        if squeezed.shape[0] > squeezed.shape[1]:
            squeezed = squeezed.T
        squeezed = squeezed[None, :, :, None]
    elif squeezed.ndim == 3:
        if keras.config.image_data_format() == "channels_last":
            squeezed = squeezed.transpose(2, 0, 1)
        squeezed = squeezed[:, :, :, None]
    if squeezed.ndim != 4 or squeezed.shape[-1] not in (1, 3, 4):
        return None
    return squeezed
