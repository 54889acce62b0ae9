"""What a training gains by more processes, told before anybody pays for them.

Each process computes its share of a batch; then an all-reduce gives every one of them the sum of
all gradients. Along a ring that takes two rounds: in the first each part of the gradients gathers
its sum, in the second the sums go round. Of `P` processes, each sends `2 (P - 1)` messages, and in
them `2 (P - 1) / P` times the bytes of the gradients, which no other way can undercut by much.

Reference: Patarasuk and Yuan, 2009, doi:10.1016/j.jpdc.2008.09.002.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """How processes are connected.

    Attributes:
        bandwidth: bytes that a process can send in a second, while it receives as many.
        latency: of a message, s.
    """

    bandwidth: float
    latency: float


def sent_bytes(gradients: float, processes: int) -> float:
    """Returns the bytes that each process sends in an all-reduce.

    Args:
        gradients: bytes of all gradients.
        processes: how many.

    Raises:
        ValueError: if there is not one process at least.

    Example:
        >>> sent_bytes(8e6, 2), sent_bytes(8e6, 4)
        (8000000.0, 12000000.0)
    """
    if processes < 1:
        raise ValueError(f"processes = {processes}; give at least 1.")
    return 2 * (processes - 1) / processes * gradients


def all_reduce_seconds(gradients: float, processes: int, network: Network) -> float:
    """Returns the time of an all-reduce along a ring, s."""
    messages = 2 * (processes - 1)
    return messages * network.latency + sent_bytes(gradients, processes) / network.bandwidth


def efficiency(
    seconds: float, gradients: float, processes: int, network: Network, hidden: float = 0.0
) -> float:
    """Returns the share of a step in which a process computes.

    It takes for granted that the processes are equally fast, that each has a device of its own, and
    that a share of the batch costs its share of the time.

    Args:
        seconds: that a process computes in a step, on its own share of the batch.
        gradients: bytes of all gradients.
        processes: how many.
        network: that connects them.
        hidden: share of the computation during which gradients can already be sent: 0 sends them
            at the end, and half is about what a backward pass leaves.

    Raises:
        ValueError: if the time is not positive, the share not one, or there is no process.

    Example:
        >>> efficiency(0.1, 8e6, 2, Network(bandwidth=80e6, latency=0))
        0.5
    """
    if seconds <= 0 or not 0 <= hidden <= 1:
        raise ValueError(f"seconds = {seconds}, hidden = {hidden}; give a time, and a share to 1.")
    seen = all_reduce_seconds(gradients, processes, network) - hidden * seconds
    return seconds / (seconds + max(0.0, seen))
