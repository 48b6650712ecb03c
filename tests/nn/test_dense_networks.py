"""`Model` and `Defender`: what they take, what they refuse by name, and files without pickle."""

from __future__ import annotations

import gc
import io
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from siguard import Defender, InputError, Model

NAN, INF = float("nan"), float("inf")
GOOD = [(np.ones((4, 3)), np.zeros(3)), (np.ones((3, 1)), np.zeros(1))]


def _model_layers() -> list[Any]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(5, 7)), rng.normal(size=7)), (rng.normal(size=(7, 4)), rng.normal(size=4))]


def test_the_forward_pass_is_x_at_w_plus_b_with_relu_between() -> None:
    (W1, b1), (W2, b2) = _model_layers()
    x = np.random.default_rng(1).normal(size=(6, 5))
    expected = np.maximum(x @ W1 + b1, 0) @ W2 + b2
    assert np.allclose(Model([(W1, b1), (W2, b2)])(x), expected, rtol=0, atol=1e-12)
    assert (Model([(W1, b1)])(x) == x @ W1 + b1).all(), "no activation after the last layer"


def test_shapes_and_classes() -> None:
    assert Model(_model_layers()).shape == (5, 7, 4)
    assert Model(_model_layers()).classes == 4
    assert Defender(GOOD).shape == (4, 3, 1)
    assert Defender(GOOD).classes == 4
    assert repr(Defender(GOOD)) == "Defender(4-3-1)"


def test_weights_are_copied_and_cannot_be_changed() -> None:
    layers = _model_layers()
    model = Model(layers)
    layers[0][0][:] = 0
    assert model.layers[0][0].any()
    with pytest.raises(ValueError, match="read-only"):
        model.layers[0][0][0, 0] = 1.0


def test_repr_does_not_show_weights() -> None:
    assert "0." not in repr(Model(_model_layers()))


@pytest.mark.parametrize(
    "layers",
    [
        [], [()], [(1,)], [None], ["ab"], [(np.ones((2, 2)),)],
        [(np.ones((2, 2)), np.zeros(3))],
        [(np.ones((2, 2)), np.zeros((1, 2)))],
        [(np.ones(2), np.zeros(2))],
        [(np.ones((0, 2)), np.zeros(2))],
        [(np.ones((2, 0)), np.zeros(0))],
        [(np.full((2, 2), NAN), np.zeros(2))],
        [(np.full((2, 2), INF), np.zeros(2))],
        [(np.ones((2, 2)), [NAN, 0])],
        [(np.ones((2, 2)), ["a", "b"])],
        [([[1, 2], [3]], [1, 2])],
        [(np.ones((2, 3)), np.zeros(3)), (np.ones((2, 2)), np.zeros(2))],
        [(np.ones((2, 2)) * 1j, np.zeros(2))],
    ],
    ids=lambda value: str(value).replace("\n", "")[:30],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_what_is_not_a_network(layers: Any) -> None:
    for network in (Model, Defender):
        with pytest.raises(InputError, match=network.__name__.lower()):
            network(layers)


@pytest.mark.parametrize("layers", [3, None, 1.5])
def test_what_is_not_even_a_list(layers: Any) -> None:
    for network in (Model, Defender):
        with pytest.raises(InputError, match=network.__name__.lower()):
            network(layers)


def test_errors_name_the_layer_and_the_field() -> None:
    with pytest.raises(InputError, match=r"defender layer 1: W"):
        Defender([GOOD[0], (np.full((3, 1), NAN), np.zeros(1))])
    with pytest.raises(InputError, match=r"model layer 0: b"):
        Model([(np.ones((2, 2)), [0, INF])])


@pytest.mark.parametrize(
    "widths", [(4, 1), (4, 3, 2), (4, 3, 3), (1, 3, 1)], ids=lambda widths: "-".join(map(str, widths))
)
def test_what_is_not_a_defender(widths: tuple[int, ...]) -> None:
    layers = [(np.ones((m, n)), np.zeros(n)) for m, n in pairwise(widths)]
    with pytest.raises(InputError, match="defender"):
        Defender(layers)


def test_a_model_needs_two_classes() -> None:
    with pytest.raises(InputError, match="model"):
        Model([(np.ones((3, 1)), np.zeros(1))])


@pytest.mark.parametrize("network", [Model(_model_layers()), Defender(GOOD)], ids=repr)
def test_save_and_load(network: Model | Defender, tmp_path: Path) -> None:
    for path in (tmp_path / "net.npz", str(tmp_path / "other.npz"), tmp_path / "no suffix"):
        network.save(path)
        again = type(network).load(path)
        assert again.shape == network.shape
        for one, other in zip(network.layers, again.layers, strict=True):
            assert (one[0] == other[0]).all()
            assert (one[1] == other[1]).all()


def test_many_layers_keep_their_order(tmp_path: Path) -> None:
    layers = [(np.full((2, 2), float(index)), np.full(2, float(index))) for index in range(12)]
    Model(layers).save(tmp_path / "deep.npz")
    again = Model.load(tmp_path / "deep.npz")
    assert [W[0, 0] for W, _ in again.layers] == list(range(12))


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"not a zip", b"PK\x03\x04 truncated", _npz(), _npz(a=np.ones(3)), _npz(W0=np.ones((2, 2))),
        _npz(b0=np.ones(2)), _npz(W1=np.ones((2, 2)), b1=np.ones(2)), _npz(W0=np.ones((2, 2)), b0=np.ones(3)),
        _npz(W0=np.ones((2, 2)), b0=np.ones(2))[:-30], _npz(W0=np.array(["a", "b"]), b0=np.ones(2)),
        pickle.dumps([1, 2, 3]),
    ],
    ids=range(12),
)  # fmt: skip
def test_files_that_are_no_network(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    try:
        with pytest.raises(InputError, match="model"):
            Model.load(path)
    finally:
        gc.collect()  # a file that is left open warns here, and not in another test


def test_a_plain_npy_file_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "array.npz"
    with path.open("wb") as file:
        np.save(file, np.ones((2, 2)))
    with pytest.raises(InputError, match=r"array\.npz"):
        Model.load(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.npz.*no such file"):
        Defender.load(tmp_path / "nowhere.npz")
    with pytest.raises(InputError, match="model"):
        Model.load(tmp_path)


class Bomb:
    """Would run when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/nonexistent-for-sure").mkdir, ())


def test_a_file_with_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    arrays = {"W0": np.array([Bomb()], dtype=object), "b0": np.ones(2)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=True)
    with pytest.raises(InputError, match=r"bomb\.npz"):
        Model.load(path)


def test_from_sklearn() -> None:
    layers = _model_layers()
    mlp = SimpleNamespace(coefs_=[W for W, _ in layers], intercepts_=[b for _, b in layers], activation="relu")
    assert Model.from_sklearn(mlp).shape == (5, 7, 4)
    with pytest.raises(InputError, match="relu"):
        Model.from_sklearn(SimpleNamespace(**{**vars(mlp), "activation": "tanh"}))
    with pytest.raises(InputError, match="fit"):
        Model.from_sklearn(SimpleNamespace(activation="relu"))
    with pytest.raises(InputError, match="defender"):
        Defender.from_sklearn(mlp)
