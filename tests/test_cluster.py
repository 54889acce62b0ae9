"""What is told of a cluster agrees with closed forms, and with two processes where it can."""

import numpy as np
import pytest

from genlib.bench.cluster import Network, all_reduce_seconds, efficiency, sent_bytes
from genlib.serve.balance import RULES, hit_rate, latencies

QUICK = Network(bandwidth=1e9, latency=1e-5)


def ring(parts):
    """All-reduces along a ring, `parts[process][part]`, and counts what each process sends."""
    n = len(parts)
    held, sent = [dict(enumerate(mine)) for mine in parts], np.zeros(n)
    for round_ in range(2 * (n - 1)):
        moved = [(i, (i - round_) % n, held[i][(i - round_) % n]) for i in range(n)]
        for i, part, value in moved:
            sent[i] += value.nbytes
            other = held[(i + 1) % n]
            other[part] = other[part] + value if round_ < n - 1 else value
    return held, sent


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_ring_gives_every_process_the_sum_and_sends_the_bytes_that_are_told(n):
    rng = np.random.default_rng(n)
    parts = rng.integers(0, 9, (n, n, 60)).astype(np.float64)
    held, sent = ring(list(parts))
    for mine in held:
        assert np.array_equal([mine[part] for part in range(n)], parts.sum(0))
    assert np.allclose(sent, sent_bytes(parts[0].nbytes, n))


def test_one_process_sends_nothing_and_computes_all_the_time():
    assert sent_bytes(1e9, 1) == 0
    assert efficiency(0.1, 1e9, 1, QUICK) == 1


def test_more_processes_larger_gradients_and_slower_networks_cost_efficiency():
    base = efficiency(0.1, 1e8, 4, QUICK)
    assert efficiency(0.1, 1e8, 64, QUICK) < base
    assert efficiency(0.1, 1e9, 4, QUICK) < base
    assert efficiency(0.1, 1e8, 4, Network(1e8, 1e-5)) < base
    assert efficiency(0.2, 1e8, 4, QUICK) > base  # a larger share of the batch
    assert efficiency(0.1, 1e8, 4, QUICK, hidden=0.5) > base
    assert efficiency(10.0, 1e8, 4, QUICK, hidden=0.5) == 1


def test_messages_alone_take_their_latency():
    assert all_reduce_seconds(0, 8, Network(1e9, 1e-3)) == pytest.approx(14e-3)


@pytest.mark.parametrize("bad", [{"processes": 0}, {"seconds": 0.0}, {"hidden": 1.1}])
def test_what_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match="give"):
        efficiency(**{"seconds": 0.1, "gradients": 1e6, "processes": 2, "network": QUICK, **bad})


# ---------------------------------------------------------------- servers


def queue(load, servers=1, n=200_000, seed=0):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.exponential(1 / (load * servers), n)), rng.exponential(1.0, n)


def test_one_server_is_the_queue_of_the_textbook():
    for rule in RULES:
        made = latencies(*queue(0.5), 1, rule)
        assert made.mean() == pytest.approx(1 / (1 - 0.5), rel=0.05)  # M/M/1


def test_least_work_is_one_queue_before_all_servers():
    load, servers = 0.8, 2  # of M/M/2: 1 / (1 - load²)
    made = latencies(*queue(load, servers), servers, "least work")
    assert made.mean() == pytest.approx(1 / (1 - load**2), rel=0.05)


def test_random_servers_are_as_many_queues_and_two_choices_are_better():
    arrivals, service = queue(0.8, 8)
    mean = {rule: latencies(arrivals, service, 8, rule).mean() for rule in RULES}
    assert mean["random"] == pytest.approx(1 / (1 - 0.8), rel=0.1)
    assert mean["least work"] < mean["better of two"] < mean["round robin"] < mean["random"]


def test_a_request_never_takes_less_than_its_service():
    arrivals, service = queue(0.9, 3, n=2000)
    for rule in RULES:
        assert (latencies(arrivals, service, 3, rule) >= service - 1e-9).all()


@pytest.mark.parametrize(
    ("servers", "rule", "n"), [(0, "random", 3), (2, "best", 3), (2, "random", 2)]
)
def test_a_bad_simulation_is_refused(servers, rule, n):
    with pytest.raises(ValueError, match="at least 1 server"):
        latencies(np.zeros(3), np.ones(n), servers, rule)


def test_a_shared_cache_hits_at_least_as_often():
    rng = np.random.default_rng(0)
    stream = [str(i) for i in rng.zipf(1.3, 5000)]
    own, by_prompt, shared = (hit_rate(stream, 4, 20, r) for r in ("own", "by prompt", "shared"))
    assert own < by_prompt
    assert own < shared
    assert hit_rate(stream, 1, 20, "own") == hit_rate(stream, 1, 20, "shared")
    with pytest.raises(ValueError, match="shared"):
        hit_rate(stream, 1, 20, "none")
