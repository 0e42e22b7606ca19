import pytest
import torch

from holdfast.audit.sealed import read_sealed, write_sealed
from holdfast.parts import DamagedError

TENSORS = {"b": torch.rand(2, 3), "a": torch.tensor([True]), "none": torch.rand(0, 3)}


def test_comes_back_and_is_the_same_file_again(tmp_path):
    file = tmp_path / "kept.safetensors"
    shared = {**TENSORS, "part": TENSORS["b"][0]}
    write_sealed(file, shared, "mine", {"classes": "[]"})
    first = file.read_bytes()
    held = read_sealed(file, "mine")
    assert held.keys() == shared.keys()
    assert all(torch.equal(held[name], shared[name]) for name in shared)
    write_sealed(file, shared, "mine", {"classes": "[]"})
    assert file.read_bytes() == first


def test_every_byte_counts(tmp_path):
    file = tmp_path / "kept.safetensors"
    write_sealed(file, TENSORS, "mine")
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        try:
            held = read_sealed(file, "mine")
        except DamagedError:
            continue
        # Metadata and blanks of the header are nobody's.
        assert all(torch.equal(held[name], TENSORS[name]) for name in TENSORS)
    for length in (0, 1, 8, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            read_sealed(file, "mine")
    file.unlink()
    with pytest.raises(DamagedError):
        read_sealed(file, "mine")
