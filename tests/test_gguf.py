"""Reading GGUF files: known numbers, damage, and the reference reader's answers."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from genlib.files import DamagedFileError
from genlib.text import gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def tiny_file() -> bytes:
    """A file with a value of each kind, and a tensor of each type."""
    values = [
        text("name") + struct.pack("<I", 8) + text("tïny"),
        text("count") + struct.pack("<II", 4, 7),
        text("on") + struct.pack("<I?", 7, True),
        text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
    ]
    plain = np.arange(6, dtype="<f4").tobytes()
    low, high = np.arange(16, dtype=np.uint8), np.arange(16, dtype=np.uint8)[::-1]
    q4 = b"".join(  # two rows of 32 weights, with d = 2, m = -1 and d = 0.5, m = 3
        np.array([d, m], "<f2").tobytes() + (low | high << 4).tobytes()
        for d, m in ((2, -1), (0.5, 3))
    )
    q8 = np.array([0.25], "<f2").tobytes() + np.arange(-16, 16, dtype=np.int8).tobytes()
    tensors, offset, body = [], 0, b""
    for name, shape, kind, raw in (
        ("plain", (2, 3), 0, plain),
        ("four", (2, 32), 3, q4),
        ("eight", (32,), 8, q8),
    ):
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        tensors.append(text(name) + sizes + struct.pack("<IQ", kind, offset))
        raw += b"\0" * (-len(raw) % 32)
        offset, body = offset + len(raw), body + raw
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(values) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + body


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_file())
    return path


def test_values_come_back(path):
    expected = {"name": "tïny", "count": 7, "on": True, "words": ["a", "b"]}
    assert gguf.read(path).metadata == expected


def test_each_type_unpacks_to_known_weights(path):
    file = gguf.read(path)
    np.testing.assert_array_equal(file["plain"], [[0, 1, 2], [3, 4, 5]])
    q = np.concatenate([np.arange(16), np.arange(16)[::-1]])
    np.testing.assert_array_equal(file["four"], [2 * q - 1, 0.5 * q + 3])
    np.testing.assert_array_equal(file["eight"], np.arange(-16, 16) / 4)
    assert all(file[name].dtype == np.float32 for name in file.tensors)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    whole = tiny_file()
    path = tmp_path / "cut.gguf"
    for size in (*range(0, len(whole) - 32, 29), len(whole) - 32):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedFileError, match=r"cut\.gguf is not a whole GGUF"):
            gguf.read(path)


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "image.gguf"
    path.write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(DamagedFileError, match="begins with 89 50 4e 47, not with GGUF"):
        gguf.read(path)


def test_an_unknown_packing_is_named(tmp_path):
    path = tmp_path / "q6.gguf"
    kind = text("plain") + struct.pack("<IQQI", 2, 3, 2, 0)
    whole = tiny_file()
    assert kind in whole
    path.write_bytes(whole.replace(kind, kind[:-4] + struct.pack("<I", 14)))
    with pytest.raises(DamagedFileError, match="plain is packed as type 14") as error:
        gguf.read(path)
    assert "Fetch it again" not in str(error.value)  # it is whole


def test_an_unknown_version_is_named(tmp_path):
    path = tmp_path / "v4.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 4) + tiny_file()[8:])
    with pytest.raises(DamagedFileError, match="is a GGUF file, but of version 4") as error:
        gguf.read(path)
    assert "Fetch it again" not in str(error.value)


@pytest.mark.parametrize("shape", [(33, 1), (0, 2), (16, 2), (32, 0, 1), (1, 1, 1, 1, 1)])
def test_a_shape_that_does_not_fit_its_packing_is_refused_at_once(tmp_path, shape):
    before = struct.pack("<I1QI", 1, 32, 8)  # of the tensor in blocks of 32
    after = struct.pack(f"<I{len(shape)}QI", len(shape), *shape, 8)
    whole = tiny_file()
    assert before in whole
    (tmp_path / "x.gguf").write_bytes(whole.replace(before, after))
    with pytest.raises(DamagedFileError, match="eight has the shape"):
        gguf.read(tmp_path / "x.gguf")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.gguf"):
        gguf.read(tmp_path / "nothing.gguf")


def test_the_reference_package_reads_the_same(path):
    reference = pytest.importorskip("gguf", reason="needs the extra `text` (gguf)")
    ours = gguf.read(path)
    for tensor in reference.GGUFReader(path).tensors:
        theirs = reference.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours[tensor.name].ravel(), theirs.ravel())
