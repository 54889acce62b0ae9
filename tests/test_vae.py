"""What holds for the VAE: its densities, its bounds against an exact log p(x), and its training."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy import integrate, stats

from genlib import backend, weights
from genlib.data import to_float
from genlib.models import vae

LOG_2_PI = math.log(2 * math.pi)


def numpy(x):
    return ops.convert_to_numpy(x)


def strokes(n: int, seed: int) -> np.ndarray:
    """Images with structure to learn: a grey bar at a random height, uint8 (n, 28, 28, 1)."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 28, 28, 1), np.uint8)
    for image in images:
        top = rng.integers(0, 22)
        image[top : top + 6, 4:24] = rng.integers(60, 256)
    return images


# ---------------------------------------------------------------- densities


@settings(deadline=None, max_examples=25)
@given(mean=st.floats(-3, 3), log_variance=st.floats(-4, 3))
def test_the_kl_in_closed_form_is_the_integral(mean, log_variance):
    q = stats.norm(mean, math.exp(0.5 * log_variance))
    expected, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)),
        mean - 12 * q.std(),
        mean + 12 * q.std(),
    )
    got = vae.gaussian_kl(ops.array([mean], "float32"), ops.array([log_variance], "float32"))
    assert float(got) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_kl_adds_over_dimensions_and_is_zero_only_for_the_prior():
    mean = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]], np.float32)
    got = numpy(vae.gaussian_kl(ops.array(mean), ops.zeros((3, 2))))
    np.testing.assert_allclose(got, [0.0, 0.5, 2.5], rtol=1e-6)
    assert float(vae.gaussian_kl(ops.zeros(2), ops.array([0.0, 0.5]))) > 0


def test_log_normal_is_scipys():
    rng = np.random.default_rng(0)
    z, mean, log_variance = rng.normal(size=(3, 5, 4)).astype(np.float32)
    expected = stats.norm.logpdf(z, mean, np.exp(0.5 * log_variance)).sum(-1)
    got = vae.log_normal(ops.array(z), ops.array(mean), ops.array(log_variance))
    np.testing.assert_allclose(numpy(got), expected, rtol=1e-5)


def test_reparametrised_draws_have_the_mean_and_the_variance():
    noise = np.random.default_rng(0).normal(size=(200_000, 1, 2)).astype(np.float32)
    z = vae.reparametrise(
        ops.array([[1.0, -2.0]]), ops.array([[0.0, math.log(0.25)]]), ops.array(noise)
    )
    np.testing.assert_allclose(numpy(z).mean(0)[0], [1, -2], atol=0.01)
    np.testing.assert_allclose(numpy(z).std(0)[0], [1, 0.5], atol=0.01)


@settings(deadline=None, max_examples=25)
@given(location=st.floats(-3, 3), log_scale=st.floats(-4, 1.5))
def test_the_256_grey_levels_share_a_mass_of_one(location, log_scale):
    levels = to_float(np.arange(256, dtype=np.uint8)).reshape(256, 1, 1, 1)
    log_mass = numpy(
        vae.log_discretised_logistic(
            ops.array(levels), ops.full((1, 1, 1, 1), location), ops.array(log_scale, "float32")
        )
    )
    assert (log_mass <= 0).all()
    assert np.exp(log_mass.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)


def test_a_level_has_the_mass_of_the_logistic_around_it():
    log_mass = vae.log_discretised_logistic(
        ops.array(to_float(np.full((1, 1, 1, 1), 100, np.uint8))),
        ops.array([[[[-0.3]]]]),
        ops.array(math.log(0.2)),
    )
    logistic = stats.logistic(-0.3, 0.2)
    edges = (np.array([99.5, 100.5]) / 127.5) - 1
    assert float(log_mass[0]) == pytest.approx(math.log(np.diff(logistic.cdf(edges))[0]), abs=1e-4)


@pytest.mark.parametrize("location", [-50.0, 50.0])
def test_a_location_far_off_gives_finite_numbers(location):
    x = ops.array(to_float(np.array([0, 128, 255], np.uint8)).reshape(3, 1, 1, 1))
    log_mass = numpy(vae.log_discretised_logistic(x, ops.full((1, 1, 1, 1), location), -3.0))
    assert np.isfinite(log_mass).all()


# ---------------------------------------------------------------- bounds, where log p(x) is known


class LinearGaussian:
    """`z ~ N(0, I)`, `x|z ~ N(W z, s^2 I)`: so `p(x)` and `p(z|x)` are Gaussians in closed form.

    The columns of W are orthogonal, so the exact posterior is diagonal and `q` can equal it.
    """

    def __init__(self):
        rng = np.random.default_rng(1)
        orthogonal, _ = np.linalg.qr(rng.normal(size=(5, 2)))
        self.w = (orthogonal * [2.0, 0.7]).astype(np.float32)
        self.s = 0.5
        self.posterior_variance = 1 / (1 + (self.w**2).sum(0) / self.s**2)
        self.x = (rng.normal(size=(64, 2)) @ self.w.T + self.s * rng.normal(size=(64, 5))).astype(
            np.float32
        )
        covariance = self.w @ self.w.T + self.s**2 * np.eye(5)
        self.log_p = stats.multivariate_normal(np.zeros(5), covariance).logpdf(self.x)

    def log_likelihood(self, x, z):
        difference = ops.square(x - ops.matmul(z, ops.array(self.w.T)))
        return -0.5 * ops.sum(difference / self.s**2 + LOG_2_PI + 2 * math.log(self.s), axis=-1)

    def exact(self, x):
        mean = ops.matmul(x, ops.array(self.w * self.posterior_variance / self.s**2, "float32"))
        return mean, ops.zeros_like(mean) + ops.array(np.log(self.posterior_variance), "float32")

    def crude(self, x):
        mean, log_variance = self.exact(x)
        return 0.7 * mean, log_variance + 0.5


@pytest.fixture(scope="module")
def linear():
    return LinearGaussian()


def noise(samples, batch, seed=0):
    return ops.array(np.random.default_rng(seed).normal(size=(samples, batch, 2)), "float32")


def test_with_the_exact_posterior_every_importance_weight_is_p_of_x(linear):
    x = ops.array(linear.x)
    bound = vae.importance_weighted_bound(x, linear.exact, linear.log_likelihood, noise(1, 64))
    np.testing.assert_allclose(numpy(bound), linear.log_p, atol=2e-3)


def test_with_the_exact_posterior_the_elbo_is_log_p(linear):
    x = ops.array(linear.x)
    bound = numpy(vae.elbo(x, linear.exact, linear.log_likelihood, noise(4000, 64)))
    assert bound.mean() == pytest.approx(linear.log_p.mean(), abs=0.01)


def test_the_elbo_lies_below_log_p_by_the_kl_to_the_posterior(linear):
    x = ops.array(linear.x)
    bound = numpy(vae.elbo(x, linear.crude, linear.log_likelihood, noise(4000, 64)))
    mean, log_variance = map(numpy, linear.crude(x))
    exact_mean, exact_log_variance = map(numpy, linear.exact(x))
    ratio = np.exp(log_variance - exact_log_variance)
    squares = (mean - exact_mean) ** 2 / np.exp(exact_log_variance)
    gap = 0.5 * (ratio + squares - 1 - np.log(ratio)).sum(-1)
    assert (bound < linear.log_p).all()
    np.testing.assert_allclose(linear.log_p - bound, gap, atol=0.15)
    assert (linear.log_p - bound - gap).mean() == pytest.approx(0, abs=0.01)


def test_more_importance_samples_tighten_the_bound_towards_log_p(linear):
    x = ops.array(linear.x)
    means = [
        np.mean([
            numpy(vae.importance_weighted_bound(
                x, linear.crude, linear.log_likelihood, noise(samples, 64, seed)
            )).mean()
            for seed in range(20)
        ])
        for samples in (1, 8, 512)
    ]  # fmt: skip
    elbo = numpy(vae.elbo(x, linear.crude, linear.log_likelihood, noise(4000, 64))).mean()
    assert means[0] == pytest.approx(elbo, abs=0.1)
    assert means[0] < means[1] < means[2] < linear.log_p.mean() + 1e-3
    assert means[2] == pytest.approx(linear.log_p.mean(), abs=0.02)


# ---------------------------------------------------------------- gradients


def test_the_gradient_through_the_reparametrisation_is_that_of_the_expectation():
    """E[z^4] is mu^4 + 6 mu^2 v + 3 v^2 for z ~ N(mu, v); its slopes in mu and log v are known."""
    parameters = keras.Input((2,))
    epsilon = np.random.default_rng(0).normal(size=(400_000,)).astype(np.float32)
    z = vae.reparametrise(parameters[:, :1], parameters[:, 1:], ops.array(epsilon)[None, :])
    model = keras.Model(parameters, ops.mean(z**4, axis=1, keepdims=True))
    mean, log_variance = 0.8, math.log(0.36)
    point = ops.array([[mean, log_variance]], "float32")
    value, pullback = backend.vjp(model, point)
    _, gradient = pullback(ops.ones_like(value))
    v = math.exp(log_variance)
    expected = [4 * mean**3 + 12 * mean * v, 6 * mean**2 * v + 6 * v**2]
    np.testing.assert_allclose(numpy(gradient)[0], expected, rtol=0.03)


def test_the_likelihoods_gradient_is_the_difference_quotient():
    rng = np.random.default_rng(0)
    x = to_float(rng.integers(0, 256, (1, 28, 28, 1)).astype(np.uint8))
    x[0, 0, 0], x[0, 0, 1] = -1, 1  # black and white have open ends
    location = keras.Input((28, 28, 1))
    log_p = vae.log_discretised_logistic(ops.array(x), location, ops.array(-1.0))
    model = keras.Model(location, ops.expand_dims(log_p, -1))
    point = rng.normal(size=(1, 28, 28, 1)).astype(np.float32)
    _, pullback = backend.vjp(model, ops.array(point))
    _, gradient = pullback(ops.ones((1, 1)))
    direction, step = rng.normal(size=point.shape).astype(np.float32), 1e-2
    ahead, behind = (float(model(point + s * direction)[0, 0]) for s in (step, -step))
    slope = float((numpy(gradient) * direction).sum())
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=5e-3)


# ---------------------------------------------------------------- the model


SMALL = vae.VAEConfig(latent_dim=3, widths=(32, 16), seed=1)


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = vae.VAE(SMALL)
    # Only JAX needs the compiler: TensorFlow would compile for longer than it trains.
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=backend.name() == "jax")
    history = model.fit(to_float(strokes(512, 0)), batch_size=64, epochs=15, verbose=0).history
    return model, history


def test_a_short_training_improves_the_elbo_on_new_images(trained):
    model, history = trained
    x = to_float(strokes(64, 1))
    fresh = vae.VAE(SMALL)
    epsilon = ops.array(np.random.default_rng(0).normal(size=(8, 64, 3)), "float32")
    before = numpy(vae.elbo(x, fresh.encode, fresh.log_likelihood, epsilon)).mean()
    after = numpy(vae.elbo(x, model.encode, model.log_likelihood, epsilon)).mean()
    assert after > before + 500
    assert history["rate"][-1] > 1, "the latent carries nothing"


def test_the_loss_is_distortion_plus_beta_times_rate(trained):
    model, _ = trained
    x = to_float(strokes(64, 2))
    for beta in (1.0, 4.0):
        model.beta.assign(beta)
        logs = model.evaluate(x, batch_size=64, verbose=0, return_dict=True)
        assert logs["loss"] == pytest.approx(logs["distortion"] + beta * logs["rate"], rel=1e-5)
    model.beta.assign(1.0)


def test_the_elbo_is_a_log_probability_so_it_lies_below_zero(trained):
    model, _ = trained
    x = to_float(strokes(16, 3))
    epsilon = ops.array(np.random.default_rng(0).normal(size=(4, 16, 3)), "float32")
    assert (numpy(vae.elbo(x, model.encode, model.log_likelihood, epsilon)) < 0).all()


def test_the_log_likelihood_of_many_samples_is_that_of_each(trained):
    model, _ = trained
    x = to_float(strokes(4, 4))
    z = ops.array(np.random.default_rng(0).normal(size=(3, 4, 3)), "float32")
    together = numpy(model.log_likelihood(x, z))
    apart = np.stack([
        numpy(vae.log_discretised_logistic(x, model.decoder(one), model.log_scale)) for one in z
    ])  # fmt: skip
    np.testing.assert_allclose(together, apart, rtol=1e-5)


def test_saved_and_loaded_the_model_gives_the_same_images(trained, tmp_path):
    model, _ = trained
    weights.save(tmp_path / "vae", weights.model_arrays(model), {"recipe": "test"})
    arrays, _ = weights.load(tmp_path / "vae")
    again = vae.VAE(SMALL)
    assert not np.array_equal(again.sample(4, seed=0), model.sample(4, seed=0))
    weights.assign(again, arrays)
    np.testing.assert_array_equal(again.sample(4, seed=0), model.sample(4, seed=0))
    images = strokes(4, 5)
    np.testing.assert_array_equal(again.reconstruct(images), model.reconstruct(images))


def test_a_seed_fixes_samples_and_initial_weights():
    one, two = vae.VAE(SMALL), vae.VAE(SMALL)
    np.testing.assert_array_equal(one.sample(3, seed=7), two.sample(3, seed=7))
    assert not np.array_equal(one.sample(3, seed=7), one.sample(3, seed=8))


def test_images_are_uint8_at_the_edge():
    model = vae.VAE(SMALL)
    for images in (model.sample(2, seed=0), model.reconstruct(strokes(2, 0))):
        assert images.shape == (2, 28, 28, 1)
        assert images.dtype == np.uint8


@pytest.mark.parametrize(
    "wrong", [{"latent_dim": 0}, {"widths": ()}, {"widths": (8, 0)}, {"beta": -1}, {"scale": 0}]
)
def test_a_config_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        vae.VAEConfig(**wrong)
