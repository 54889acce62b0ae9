"""Fashion-MNIST and its readers: the right bytes, or a clear refusal."""

import gzip
import io
import lzma
import shutil

import numpy as np
import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genlib import files
from genlib.data import CLASS_NAMES, DamagedFileError, fashion, fashion_mnist, to_float, to_uint8
from genlib.data.idx import format_idx, parse_idx, read_bytes, read_idx

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A machine with an empty cache, no Debian package and no network."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "no-debian")
    monkeypatch.setenv("GENLIB_OFFLINE", "1")
    monkeypatch.delenv("GENLIB_DATA", raising=False)
    return tmp_path


@pytest.fixture
def copy_of_subset(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(fashion.PACKAGED, folder)
    return folder


# Images


@given(hnp.arrays(np.uint8, hnp.array_shapes()))
def test_pixels_survive_the_way_to_floats_and_back(pixels):
    x = to_float(pixels)
    assert x.dtype == np.float32
    assert (np.abs(x) <= 1).all()
    np.testing.assert_array_equal(to_uint8(x), pixels)


def test_floats_outside_the_range_are_clipped():
    np.testing.assert_array_equal(to_uint8(np.array([-9.0, 9.0])), [0, 255])


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_to_float_refuses_what_is_not_pixels(dtype):
    with pytest.raises(TypeError, match="uint8"):
        to_float(np.zeros(3, dtype))


def test_to_uint8_refuses_integers_and_nan():
    with pytest.raises(TypeError, match="floats"):
        to_uint8(np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(np.array([0.0, np.nan]))


# IDX


@given(arrays)
def test_idx_survives_writing_and_reading(array):
    np.testing.assert_array_equal(parse_idx(format_idx(array)), array)


@same_folder
@given(arrays, st.sampled_from([lambda b: b, gzip.compress, lzma.compress]))
def test_idx_is_read_plain_and_packed(tmp_path, array, pack):
    (tmp_path / "x").write_bytes(pack(format_idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), array)


@given(st.binary(max_size=64) | st.binary(max_size=48).map(lambda b: b"\0\0\x08" + b))
def test_any_bytes_are_a_whole_idx_array_or_refused(data):
    try:
        array = parse_idx(data)
    except DamagedFileError:
        return
    assert format_idx(array) == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "nothing"),
        (b"\x89PNG\r\n", "00 00 08"),
        (b"\0\0\x0d\x01\0\0\0\0", "00 00 08"),  # float32 elements
        (b"\0\0\x08\x00\x07", "number of axes"),
        (b"\0\0\x08\x03\0\0\0\x01", "inside its header"),
        (b"\0\0\x08\x01\0\0\0\x03ab", "holds 2"),
        (b"\0\0\x08\x01\0\0\0\x03abcd", "holds 4"),
        (b"\0\0\x08\x04" + b"\xff" * 16, "promises shape"),
        (b"\0\0\x08\x03" + b"\xff" * 8 + b"\0" * 4, "impossible shape"),
    ],
)
def test_idx_refuses(data, words):
    with pytest.raises(DamagedFileError, match=words):
        parse_idx(data, "this file")


@same_folder
@given(st.sampled_from([gzip.compress, lzma.compress]), st.data())
def test_a_damaged_packed_file_is_whole_or_refused(tmp_path, pack, data):
    content = format_idx(np.arange(100, dtype=np.uint8).reshape(4, 25))
    packed = bytearray(pack(content))
    packed = packed[: data.draw(st.integers(0, len(packed)), label="cut to")]
    for _ in range(data.draw(st.integers(0, 3), label="changed bytes")):
        if packed:
            at = data.draw(st.integers(0, len(packed) - 1))
            packed[at] = data.draw(st.integers(0, 255))
    (tmp_path / "x").write_bytes(packed)
    try:
        array = read_idx(tmp_path / "x")
    except DamagedFileError:
        return
    assert format_idx(array) == content


def test_a_file_that_unpacks_without_end_is_refused(tmp_path):
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(2**22)))
    with pytest.raises(DamagedFileError, match="more than"):
        read_bytes(tmp_path / "bomb", limit=2**21)


def test_idx_writes_only_bytes_with_axes():
    with pytest.raises(TypeError, match="uint8"):
        format_idx(np.zeros(3))
    with pytest.raises(ValueError, match="axes"):
        format_idx(np.array(3, np.uint8))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")


# Writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    files.write_atomic(tmp_path / "a", b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


# Fashion-MNIST


def test_the_packaged_subset_is_balanced_small_and_says_so():
    data = fashion_mnist(source="subset")
    assert data.train_images.shape == (12_000, 28, 28, 1)
    assert data.test_images.shape == (2_000, 28, 28, 1)
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int64
    assert set(np.bincount(data.train_labels)) == {1_200}
    assert set(np.bincount(data.test_labels)) == {200}
    assert (data.is_subset, data.source) == (True, "subset")
    assert data.label() == "Fashion-MNIST (subset of 14,000)"
    assert sum(p.stat().st_size for p in fashion.PACKAGED.iterdir()) <= 6_000_000
    assert len(CLASS_NAMES) == 10


def test_the_subset_is_part_of_the_whole_set():
    whole = fashion_mnist()
    if whole.is_subset:
        pytest.skip("the whole set is not on this machine")
    assert whole.train_images.shape == (60_000, 28, 28, 1)
    assert whole.label() == "Fashion-MNIST"
    part = fashion_mnist(source="subset")
    for c in (0, 9):
        np.testing.assert_array_equal(
            part.test_images[part.test_labels == c],
            whole.test_images[whole.test_labels == c][:200],
        )


def test_with_nothing_else_the_subset_is_found(elsewhere):
    assert fashion_mnist().source == "subset"


def test_an_explicit_folder_comes_before_all_others(elsewhere, copy_of_subset, monkeypatch):
    assert fashion_mnist(path=copy_of_subset).source == "path"
    monkeypatch.setenv("GENLIB_DATA", str(copy_of_subset))
    assert fashion_mnist().source == "path"
    assert fashion_mnist(source="subset").source == "subset"


def test_the_cache_comes_before_debian_and_debian_before_the_subset(elsewhere, copy_of_subset):
    shutil.copytree(copy_of_subset, fashion.DEBIAN)
    assert fashion_mnist().source == "debian"
    shutil.copytree(copy_of_subset, elsewhere / "cache" / "fashion-mnist")
    assert fashion_mnist().source == "cache"


def test_a_half_filled_cache_is_passed_by(elsewhere, copy_of_subset):
    (copy_of_subset / "t10k-labels-idx1-ubyte.xz").unlink()
    shutil.copytree(copy_of_subset, elsewhere / "cache" / "fashion-mnist")
    assert fashion_mnist().source == "subset"


@pytest.mark.parametrize("name", fashion.FILES)
def test_a_changed_pixel_or_label_is_refused_by_name(copy_of_subset, name):
    array = read_idx(copy_of_subset / f"{name}.xz").copy()
    array.flat[0] ^= 1
    (copy_of_subset / f"{name}.xz").unlink()
    (copy_of_subset / name).write_bytes(format_idx(array))
    # Without its first file the subset is not known as such; then that file is to blame.
    with pytest.raises(DamagedFileError, match=name):
        fashion_mnist(path=copy_of_subset)


def test_a_damaged_cache_stops_the_search(elsewhere, copy_of_subset):
    cache = elsewhere / "cache" / "fashion-mnist"
    shutil.copytree(copy_of_subset, cache)
    file = cache / "train-images-idx3-ubyte.xz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedFileError, match="train-images"):
        fashion_mnist()


def test_files_of_the_wrong_kind_are_refused(copy_of_subset):
    (copy_of_subset / "train-labels-idx1-ubyte.xz").write_bytes(
        (copy_of_subset / "t10k-labels-idx1-ubyte.xz").read_bytes()
    )
    with pytest.raises(DamagedFileError, match="train-labels"):
        fashion_mnist(path=copy_of_subset)


def test_a_forced_source_never_falls_back(elsewhere):
    for source in ("cache", "debian"):
        with pytest.raises(FileNotFoundError, match="train-images"):
            fashion_mnist(source=source)
    with pytest.raises(ValueError, match="GENLIB_DATA"):
        fashion_mnist(source="path")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fashion_mnist(path=elsewhere / "nowhere")


def test_an_unknown_or_contradictory_source_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Choose one of path, cache, debian, keras, subset"):
        fashion_mnist(source="kaggle")
    with pytest.raises(ValueError, match="differ"):
        fashion_mnist(source="subset", path=tmp_path)


@pytest.fixture
def keras_gives(monkeypatch):
    """Replaces the download of keras.datasets by a function."""
    from keras.datasets import fashion_mnist as keras_fashion_mnist

    return lambda load: monkeypatch.setattr(keras_fashion_mnist, "load_data", load)


def test_a_download_is_checked_and_kept_in_the_cache(elsewhere, keras_gives, monkeypatch):
    monkeypatch.delenv("GENLIB_OFFLINE")
    part = fashion_mnist(source="subset")
    x, x_test = part.train_images[..., 0], part.test_images[..., 0]
    pairs = (x, part.train_labels), (x_test, part.test_labels)
    keras_gives(lambda: pairs)
    assert fashion_mnist().source == "keras"
    assert fashion_mnist().source == "cache"
    assert len(list((elsewhere / "cache" / "fashion-mnist").iterdir())) == 4
    keras_gives(lambda: ((x[:-1], part.train_labels), pairs[1]))
    with pytest.raises(DamagedFileError, match="keras"):
        fashion_mnist(source="keras")


def test_without_a_network_the_search_goes_on_and_a_forced_download_says_why(
    elsewhere, keras_gives, monkeypatch
):
    monkeypatch.delenv("GENLIB_OFFLINE")

    def fails():
        raise Exception("URL fetch failure")  # as Keras does

    keras_gives(fails)
    assert fashion_mnist().source == "subset"
    with pytest.raises(FileNotFoundError, match="URL fetch failure"):
        fashion_mnist(source="keras")


def test_a_truncated_file_in_the_folder_of_keras_is_named(elsewhere, keras_gives):
    def truncated():
        return gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"abc")[:-4])).read()

    keras_gives(truncated)
    with pytest.raises(DamagedFileError, match=r"\.keras/datasets"):
        fashion_mnist(source="keras")


def test_offline_means_that_nothing_is_fetched(elsewhere, keras_gives):
    def forbidden(*args, **kwargs):
        raise AssertionError("a download was tried")

    keras_gives(forbidden)
    assert fashion_mnist().source == "subset"


def test_a_fingerprint_tells_other_pixels_shapes_and_types_apart():
    from genlib.data.images import fingerprint

    base = np.zeros((2, 3), np.uint8)
    other = base.copy()
    other[1, 2] = 1
    different = [base, other, base.reshape(3, 2), base.astype(np.int8)]
    assert len({fingerprint(images) for images in different}) == 4
    assert fingerprint(base) == fingerprint(base.copy())
