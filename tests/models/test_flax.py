"""Flax modules as models: what they compute, that equal modules share one function, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.flax import from_flax
from modeldiff_jax.models.identity import params_digest
from modeldiff_jax.types import TensorSpec

pytestmark = pytest.mark.default_promotion

IMAGES = (None, 8, 8, 1)


class Linen(linen.Module):
    classes: int = 3

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Conv(4, (3, 3))(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(self.classes)(self.pool(x))

    def pool(self, x):
        return x.mean((1, 2))


class Nnx(nnx.Module):
    def __init__(self, classes, seed):
        rngs = nnx.Rngs(seed)
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(self.norm(self.conv(x))).mean((1, 2)))

    def mean(self, x, scale=1.0):
        return scale * x.mean((1, 2, 3))


class TwoInputs(linen.Module):
    @linen.compact
    def __call__(self, tokens, scores):
        embedded = linen.Embed(7, 4)(tokens)
        return {"b": embedded, "a": linen.Dense(2)(scores)}


def linen_variables(seed=0, classes=3):
    variables = Linen(classes).init(jax.random.key(seed), jnp.ones((1, 8, 8, 1)))
    return jax.tree.map(lambda x: x + 0.1, variables)  # statistics that are not those of a fresh model


def nnx_module(seed=0, classes=3):
    module = Nnx(classes, seed)
    module(images())  # in training mode: moves the running statistics
    return module


def images(n=5):
    return np.random.default_rng(0).normal(size=(n, 8, 8, 1)).astype(np.float32)


def build(kind, seed=0, classes=3):
    if kind == "linen":
        return from_flax(Linen(classes), linen_variables(seed, classes), IMAGES)
    return from_flax(nnx_module(seed, classes), None, IMAGES)


def test_linen_computes_what_the_module_infers():
    variables = linen_variables()
    model = from_flax(Linen(3), variables, IMAGES)
    np.testing.assert_allclose(model(images()), Linen(3).apply(variables, images()), rtol=1e-5, atol=1e-6)


def test_nnx_computes_what_the_module_infers_and_leaves_it_as_it_was():
    module = nnx_module()
    before = jax.tree.map(jnp.copy, nnx.state(module, nnx.BatchStat))
    model = from_flax(module, None, IMAGES)
    assert not module.drop.deterministic
    given = model(images())
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(module, nnx.BatchStat))
    module.eval()
    np.testing.assert_allclose(given, module(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_equal_modules_share_one_function_and_it_is_compiled_once(kind):
    one, two, other = build(kind, 0), build(kind, 1), build(kind, 0, classes=4)
    assert one.apply is two.apply
    assert one.apply is not other.apply
    traces = []
    shared = jax.jit(lambda params, x: (traces.append(1), one.apply(params, x))[1])
    first, second = shared(one.params, images()), shared(two.params, images())
    assert len(traces) == 1
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_models_of_one_module_stack_under_vmap(kind):
    models = [build(kind, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(m.params for m in models))
    together = jax.vmap(models[0].apply, in_axes=(0, None))(stacked, images())
    for model, outputs in zip(models, together, strict=True):
        np.testing.assert_allclose(model(images()), outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_gradients_reach_the_input(kind):
    model = build(kind)
    x = images(2)
    gradient = jax.grad(lambda x: model.apply(model.params, x)[:, 0].sum())(x)
    bump = np.zeros_like(x)
    bump[1, 3, 4, 0] = 1e-2
    finite = (model(x + bump) - model(x - bump))[:, 0].sum() / 2e-2
    np.testing.assert_allclose(gradient[1, 3, 4, 0], finite, rtol=1e-2, atol=1e-4)


def test_specs_of_several_inputs_and_outputs():
    spec = [jax.ShapeDtypeStruct((2, 6), jnp.int32), TensorSpec("scores", ("n", "m", 5), np.dtype(np.float32))]
    variables = TwoInputs().init(jax.random.key(0), jnp.zeros((2, 6), int), jnp.zeros((2, 3, 5)))
    model = from_flax(TwoInputs(), variables, spec, name="pair")
    assert [str(s) for s in model.inputs] == ["input_0: int32[2, 6]", "scores: float32[n, m, 5]"]
    assert [str(s) for s in model.outputs] == ["a: float32[n, m, 2]", "b: float32[2, 6, 4]"]
    a, b = model(np.zeros((2, 6), np.int32), scores=np.ones((2, 3, 5), np.float32))
    assert (a.shape, b.shape) == ((2, 3, 2), (2, 6, 4))
    assert model.origin.path == "pair"


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_a_dynamic_batch_stays_dynamic(kind):
    model = build(kind)
    assert str(model.outputs[0]) == "output: float32[batch, 3]"
    assert model(images(1)).shape == (1, 3)
    assert model(images(7)).shape == (7, 3)


def test_another_method_and_its_arguments():
    x = images()
    assert from_flax(Linen(3), linen_variables(), IMAGES, method="pool")(x).shape == (5, 1)
    doubled = from_flax(nnx_module(), None, IMAGES, method="mean", call_kwargs={"scale": 2.0})(x)
    np.testing.assert_allclose(doubled, 2 * x.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        from_flax(nnx_module(), None, IMAGES, method=Nnx.mean)(x), x.mean((1, 2, 3)), rtol=1e-5, atol=1e-6
    )


class Tagger(nnx.Module):
    """A recurrent network, whose cells count a random stream in each call."""

    def __init__(self, cell, seed=0):
        self.rnn = nnx.RNN(cell(5, 6, rngs=nnx.Rngs(seed)))
        self.head = nnx.Linear(6, 3, rngs=nnx.Rngs(seed))

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


class Counting(nnx.Module):
    """A module that writes to a variable in each call."""

    def __init__(self):
        self.count = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.count[...] += 1
        return x + self.count[...]


class Noisy(nnx.Module):
    """A module that draws from its random stream in evaluation mode too."""

    def __init__(self, seed):
        self.rngs = nnx.Rngs(noise=seed)
        self.scale = nnx.Param(jnp.full((5,), 2.0))

    def __call__(self, x):
        return x * self.scale + jax.random.normal(self.rngs.noise(), x.shape)


def bidirectional():
    forward, backward = (nnx.RNN(nnx.LSTMCell(5, 6, rngs=nnx.Rngs(seed))) for seed in (0, 1))
    return nnx.Bidirectional(forward, backward, rngs=nnx.Rngs(2))


def linen_inside():
    return nnx.bridge.lazy_init(nnx.bridge.ToNNX(linen.Dense(3), rngs=nnx.Rngs(0)), SERIES)


SERIES = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
UPDATING = {
    "LSTM": lambda: Tagger(nnx.LSTMCell),
    "GRU": lambda: Tagger(nnx.GRUCell),
    "bidirectional": bidirectional,
    "linen inside": linen_inside,
    "counting": Counting,
    "noisy": lambda: Noisy(3),
}


@pytest.mark.parametrize("make", UPDATING.values(), ids=UPDATING)
def test_nnx_modules_that_update_variables_in_their_call_start_anew_in_each(make):
    module = make()
    model = from_flax(module, None, (None, 7, 5))
    expected = nnx.clone(module)(SERIES)
    for _ in range(2):
        np.testing.assert_allclose(model(SERIES), expected, rtol=1e-5, atol=1e-6)


def test_random_state_counts_where_outputs_depend_on_it():
    one, same, other = (from_flax(Noisy(seed), None, (None, 7, 5)) for seed in (1, 1, 2))
    assert one.apply is same.apply
    assert one.origin == same.origin
    assert one.apply is not other.apply
    assert one.origin.content_sha256 != other.origin.content_sha256
    assert np.abs(one(SERIES) - other(SERIES)).max() > 0.1
    cells = [from_flax(Tagger(nnx.LSTMCell, seed), None, (None, 7, 5)) for seed in (0, 1)]
    assert cells[0].apply is cells[1].apply


def test_a_recurrent_linen_module_computes_what_it_infers():
    module = linen.RNN(linen.LSTMCell(6))
    variables = module.init(jax.random.key(0), SERIES)
    model = from_flax(module, variables, (None, 7, 5))
    np.testing.assert_allclose(model(SERIES), module.apply(variables, SERIES), rtol=1e-5, atol=1e-6)


def test_nnx_takes_the_state_of_another_module():
    one, two = nnx_module(0), nnx_module(1)
    model = from_flax(two, nnx.state(one), IMAGES)
    np.testing.assert_array_equal(model(images()), from_flax(one, None, IMAGES)(images()))


def test_a_module_with_a_field_that_has_no_hash_works():
    class Odd(linen.Module):
        options: dict

        @linen.compact
        def __call__(self, x):
            return linen.Dense(self.options["classes"])(x)

    module = Odd({"classes": 2})
    model = from_flax(module, module.init(jax.random.key(0), jnp.ones((1, 3))), (None, 3))
    assert model(np.ones((4, 3), np.float32)).shape == (4, 2)


def test_the_digest_is_of_the_weights_and_where_they_stand():
    tree = {"b": np.arange(3, dtype=np.float32), "a": {"c": np.ones((2, 2), np.float32)}}
    same = {"a": {"c": jnp.ones((2, 2))}, "b": jnp.arange(3.0)}
    assert params_digest(tree) == params_digest(same)
    others = [
        {"b": np.arange(3, dtype=np.float32), "a": {"c": np.ones((4,), np.float32)}},
        {"b": np.arange(3, dtype=np.int32), "a": {"c": np.ones((2, 2), np.float32)}},
        {"b": np.arange(3, dtype=np.float32), "x": {"c": np.ones((2, 2), np.float32)}},
        {"b": np.arange(3, dtype=np.float32) + 1e-7, "a": {"c": np.ones((2, 2), np.float32)}},
    ]
    assert len({params_digest(t) for t in [tree, *others]}) == 5
    assert build("nnx", 0).origin.sha256 == build("nnx", 0).origin.sha256 != build("nnx", 1).origin.sha256


def test_equal_weights_in_other_programs_are_other_models():
    variables = linen_variables()
    models = [
        from_flax(Linen(3), variables, IMAGES),
        from_flax(Linen(3), variables, IMAGES, method="pool"),
        from_flax(Linen(3), variables, (None, 16, 16, 1), method="pool"),
    ]
    assert len({model.origin.sha256 for model in models}) == 1
    assert len({model.origin.content_sha256 for model in models}) == 3
    assert from_flax(Linen(3), variables, IMAGES).origin == models[0].origin


def test_the_model_does_not_change_with_the_callers_arrays():
    variables = jax.tree.map(np.array, linen_variables())
    model = from_flax(Linen(3), variables, IMAGES)
    before = np.array(model(images()))
    variables["params"]["Dense_0"]["bias"] += 1
    np.testing.assert_array_equal(model(images()), before)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (lambda: (Linen(3), {"params": linen_variables()["params"]}, IMAGES), "batch_stats"),
        (lambda: (Linen(4), linen_variables(), IMAGES), "Dense_0"),
        (lambda: (Linen(3), linen_variables(), (None, 8, 8, 2)), "Conv_0"),
        (lambda: (Linen(3), None, IMAGES), "NoneType"),
        (lambda: (Linen(3), {"params": "text"}, IMAGES), "str"),
        (lambda: (nnx_module(), None, (None, 8, 8, 3)), "float32[batch, 8, 8, 3]"),
        (lambda: (nnx_module(), 3, IMAGES), "nnx"),
        (lambda: (len, None, IMAGES), "from_callable"),
        (lambda: (Linen(3), linen_variables(), "8"), "input_spec"),
        (lambda: (Linen(3), linen_variables(), ()), "input_spec"),
        (lambda: (Linen(3), linen_variables(), (None, -1, 8, 1)), "input_spec"),
    ],
)
def test_what_cannot_run_is_refused(arguments, says):
    with pytest.raises(InvalidInputError) as caught:
        from_flax(*arguments())
    assert says in str(caught.value)


def test_training_mode_is_refused_because_it_would_change_the_variables():
    with pytest.raises(InvalidInputError, match="train"):
        from_flax(Linen(3), linen_variables(), IMAGES, call_kwargs={"train": True})
