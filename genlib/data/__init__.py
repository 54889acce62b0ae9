"""Data sets: arrays from checked files."""

from genlib.data.emoji import emoji
from genlib.data.fashion import CLASS_NAMES, FashionMNIST, fashion_mnist
from genlib.data.folder import Captioned, folder
from genlib.data.idx import read_idx
from genlib.data.images import to_float, to_uint8
from genlib.files import DamagedFileError

__all__ = [
    "CLASS_NAMES",
    "Captioned",
    "DamagedFileError",
    "FashionMNIST",
    "emoji",
    "fashion_mnist",
    "folder",
    "read_idx",
    "to_float",
    "to_uint8",
]
