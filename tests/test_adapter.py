"""An adapter changes nothing before it is trained, and nothing but the copy after."""

import keras
import numpy as np
import pytest
from test_cache import small_flow

from genlib.models.adapter import with_adapter


@pytest.fixture
def flow_and_text():
    return small_flow()


def test_an_untrained_adapter_draws_what_the_flow_draws(flow_and_text):
    flow, said = flow_and_text
    copy, _ = with_adapter(flow)
    made = copy.sample(said, 5, steps=4, guidance=2.0)
    np.testing.assert_allclose(made, flow.sample(said, 5, steps=4, guidance=2.0), atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_factors_are_all_that_is_trained(flow_and_text, rank):
    copy, adapted = with_adapter(flow_and_text[0], rank)
    expected = sum(rank * sum(layer.lora_kernel_a.shape[:1]) for layer in adapted)
    expected += sum(rank * layer.lora_kernel_b.shape[1] for layer in adapted)
    assert sum(int(np.prod(v.shape)) for v in copy.trainable_variables) == expected
    assert len(copy.trainable_variables) == 2 * len(adapted)


def test_training_moves_the_copy_and_leaves_the_flow(flow_and_text):
    flow, said = flow_and_text
    before = [np.array(w) for w in flow.get_weights()]
    copy, _ = with_adapter(flow)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 16, 16, 2)).astype(np.float32)
    inputs = {"x": x, "time": np.full(3, 0.5, np.float32), "text": said}
    copy.compile(keras.optimizers.Adam(1e-2), "mse")
    copy.fit(inputs, x, batch_size=3, epochs=3, verbose=0)
    for old, new in zip(before, flow.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    made = copy.sample(said, 5, steps=2, guidance=1.0)
    assert np.abs(made - flow.sample(said, 5, steps=2, guidance=1.0)).max() > 1e-4


def test_a_rank_of_nothing_is_refused(flow_and_text):
    with pytest.raises(ValueError, match="rank = 0"):
        with_adapter(flow_and_text[0], 0)
