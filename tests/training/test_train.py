"""Training lowers the loss; many at once equal a loop; a resumed run equals an uninterrupted one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffhw.training import Data, Splits, evaluate, evaluate_many, load, observe_many, train, train_many
from diffhw.training._families import Conv, Family, Inverted
from diffhw.training._networks import ConvNet

# Real blocks, few of them: compiling is most of a test's time.
TINY = Family("relu6", (Conv(16, 3, 2), Inverted(3, 16, 1, 1, 3)), by=4)


def make(key=0):
    plan = TINY.plan("tiny", (8, 8, 1), 10, 1.0)
    rngs = nnx.Rngs(key)
    return ConvNet("tiny", plan.input_shape, tuple(plan.steps), rngs=rngs)


def smaller(key=0):
    """A convolution and the classes, for what no block has a part in."""
    plan = Family("relu6", (Conv(16, 3, 2),), by=4).plan("smaller", (8, 8, 1), 10, 1.0)
    return ConvNet("smaller", plan.input_shape, tuple(plan.steps), rngs=nnx.Rngs(key))


def part(data, n):
    return Data(data.x[:n], data.y[:n], data.classes, data.name)


@pytest.fixture(scope="module")
def data():
    splits = load("digits")
    return Splits(part(splits.train, 192), part(splits.validation, 96), part(splits.test, 96))


def weights(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


@pytest.fixture(scope="module")
def trained(data):
    return train(make(), data, epochs=6, batch=16, key=1)


@pytest.mark.slow
def test_training_lowers_the_loss(data, trained):
    start = make()
    before = [np.asarray(w) for w in weights(start)]
    assert trained.loss.shape == (6,) and trained.loss[-1] < 0.7 * trained.loss[0]
    assert trained.accuracy == trained.validation_accuracy[-1] > 0.25
    assert trained.accuracy == pytest.approx(evaluate(trained.model, data.validation, batch=40), abs=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(start)))  # the one given is left alone


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "optax"])
def test_other_optimizers(data, optimizer):
    import optax

    chosen = optax.adam(5e-3) if optimizer == "optax" else optimizer
    result = train(make(), data, epochs=6, batch=16, optimizer=chosen, key=1, shift=0)
    assert result.loss[-1] < 0.8 * result.loss[0]


@pytest.mark.slow
def test_quantization_aware_training(data):
    result = train(make(), data, epochs=6, batch=16, bits=[4, 3, 3, 4, 4], key=1, shift=0)
    assert result.loss[-1] < 0.8 * result.loss[0]
    with pytest.raises(ValueError, match="one entry per quantized layer: got 2 for 5 layers"):
        train(make(), data, epochs=1, batch=32, bits=[2, 3])


@pytest.mark.slow
def test_resumed_equals_uninterrupted_bit_for_bit(data, trained, tmp_path):
    class Stop(Exception):
        pass

    def stop(done, total, accuracy):
        if done == 4:
            raise Stop

    with pytest.raises(Stop):
        train(make(), data, epochs=6, batch=16, key=1, checkpoint=tmp_path / "run", every=2, progress=stop)
    seen = []
    again = train(
        make(),
        data,
        epochs=6,
        batch=16,
        key=1,
        checkpoint=tmp_path / "run",
        every=2,
        progress=lambda done, total, accuracy: seen.append(done),
    )
    assert seen == [5, 6]
    assert np.array_equal(again.loss, trained.loss)
    assert np.array_equal(again.validation_accuracy, trained.validation_accuracy)
    assert all(np.array_equal(a, b) for a, b in zip(weights(again.model), weights(trained.model)))
    with pytest.raises(ValueError, match="checkpoint of another run: batch was 16 there and is 24 here"):
        train(make(), data, epochs=6, batch=24, key=1, checkpoint=tmp_path / "run")
    for file in (tmp_path / "run").glob("step_*/**/*"):
        if file.is_file():
            file.write_bytes(b"broken")
    with pytest.raises(ValueError, match="step_6: this checkpoint is corrupt; delete it"):
        train(make(), data, epochs=6, batch=16, key=1, checkpoint=tmp_path / "run")


@pytest.mark.slow
def test_many_equal_a_loop_and_resume(data, tmp_path):
    configs = {
        "seed": [0, 1, 2, 3, 4],
        "learning_rate": [0.1, 0.1, 0.03, 0.1, 0.03],  # equal where compared: `train` bakes it in
        "weight_decay": [0.0005] * 5,
    }
    options = dict(epochs=2, batch=32, chunk=2, devices=jax.devices()[:2])
    seen = []
    many = train_many(make, configs, data, **options, progress=lambda *a: seen.append(a[:2]))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert many.loss.shape == (5, 2) and many.accuracy.shape == (5,)
    for i in (2, 4):
        key = jax.random.key(i)
        alone = train(
            make(key),
            data,
            epochs=2,
            batch=32,
            key=jax.random.fold_in(key, 1),
            learning_rate=configs["learning_rate"][i],
        )
        np.testing.assert_allclose(many.loss[i], alone.loss, rtol=2e-3)
        for a, b in zip(weights(many.model(i)), weights(alone.model)):
            np.testing.assert_allclose(a, b, atol=5e-3)

    class Stop(Exception):
        pass

    def stop(done, total, best):
        if done == 4:
            raise Stop

    with pytest.raises(Stop):
        train_many(make, configs, data, **options, checkpoint=tmp_path / "m", progress=stop)
    seen = []
    again = train_many(
        make, configs, data, **options, checkpoint=tmp_path / "m", progress=lambda *a: seen.append(a[0])
    )
    assert seen == [5]
    assert np.array_equal(again.loss, many.loss) and np.array_equal(again.accuracy, many.accuracy)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (again.states, many.states))))


@pytest.mark.slow
def test_many_with_bits(data):
    configs = {"seed": [0, 0], "bits": [[8] * 2, [1] * 2]}
    many = train_many(smaller, configs, data, epochs=3, batch=32, keep=False)
    assert many.loss[0, -1] < many.loss[1, -1]
    with pytest.raises(ValueError, match="weights were not kept"):
        many.model(0)


@pytest.mark.parametrize("vectorize", [1, 4])
def test_evaluate_many_equals_a_loop(data, vectorize):
    """Any function of a row: here thresholds on a pixel. 4 devices, padded chunks, padded tiles."""

    def apply(row, images):
        return jnp.stack([images[:, 4, 3, 0] * row[0], jnp.full(len(images), row[1])], -1)

    rows = np.random.default_rng(0).normal(size=(21, 2)).astype(np.float32)
    seen = []
    got = evaluate_many(
        apply,
        rows,
        data.validation,
        chunk=4,
        tile=40,
        vectorize=vectorize,
        progress=lambda *a: seen.append(a[0]),
    )
    pixel = data.validation.x[:, 4, 3, 0]
    want = [((pixel * a < b).astype(int) == data.validation.y).mean() for a, b in rows]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert seen == [4, 8, 12, 16, 20, 21]


@pytest.mark.parametrize("chunk", [4, 8, 256])
def test_observe_many_equals_a_loop(data, chunk):
    """Chunks that do not divide 21 rows, tiles that do not divide the images."""
    images, labels = data.validation.x.reshape(len(data.validation), -1), data.validation.y
    classes = data.validation.classes
    rows = np.random.default_rng(1).normal(size=(21, images.shape[1], classes)).astype(np.float32)

    def apply(row, images):
        return images.reshape(len(images), -1) @ row

    seen = []
    accuracy, aspects = observe_many(
        apply, rows, data.validation, chunk=chunk, tile=40, progress=lambda *a: seen.append(a)
    )
    logits = images @ rows
    right = logits.argmax(-1) == labels
    likely = np.exp(logits - logits.max(axis=-1, keepdims=True))
    likely = (likely / likely.sum(axis=-1, keepdims=True))[:, np.arange(len(labels)), labels]
    by_class = [right[:, labels == c].mean(axis=1) for c in range(classes)]
    np.testing.assert_allclose(accuracy, right.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(aspects, np.column_stack([*by_class, likely.mean(axis=1)]), atol=1e-5)
    done = [*range(chunk, 21, chunk), 21]
    assert [one[:2] for one in seen] == [(n, 21) for n in done]
    np.testing.assert_allclose([one[2] for one in seen], [accuracy[:n].max() for n in done])
    plain = evaluate_many(apply, rows, data.validation, chunk=chunk, tile=40)
    np.testing.assert_allclose(accuracy, plain, atol=1e-7)


@pytest.mark.slow
def test_evaluate_many_of_bits(data, trained):
    from diffhw.quantization import QuantizedModel
    from diffhw.quantization._fold import fold_batch_norm
    from diffhw.training import bits_apply

    model = fold_batch_norm(trained.model, data.train.x[:32])
    q = QuantizedModel.of(model, data.train.x[:32], whole=True)
    apply = bits_apply(q)
    bits = np.random.default_rng(0).integers(1, 9, (6, 5))
    got = evaluate_many(apply, bits, data.validation)
    plain = jax.jit(lambda b: (q(b, data.validation.x).argmax(-1) == data.validation.y).mean())
    np.testing.assert_allclose(got, [float(plain(jnp.float32(b))) for b in bits], atol=0.011)
    for wrong, message in (
        (bits[:, :3], r"bits must have shape \(N, 5\), one column per layer of tiny, got \(6, 3\)"),
        (bits * 0, "whole numbers from 1 to 8, got 0 for layer 'stem' in row 0"),
        (bits + 0.5, "whole numbers"),
        (bits[:0], "at least one row"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_many(apply, wrong, data.validation)
    other = Data(np.zeros((4, 9, 9, 1), np.float32), np.zeros(4, np.int32), 10, "others")
    with pytest.raises(ValueError, match=r"tiny takes images of \(8, 8, 1\), and those of others"):
        evaluate_many(apply, bits, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(epochs=0), "epochs must be an integer >= 1, got 0"),
        (dict(batch=1000), r"batch must be at most the number of training images \(192\), got 1000"),
        (dict(optimizer="adam"), "did you mean 'adamw'"),
        (dict(learning_rate=-1.0), "learning_rate must be > 0, got -1.0"),
        (dict(weight_decay=float("nan")), "weight_decay must be >= 0"),
    ],
)
def test_settings_that_cannot_be(data, options, message):
    with pytest.raises(ValueError, match=message):
        train(make(), data, **options)


def test_images_that_are_not_the_networks(data):
    wide = Data(np.zeros((4, 9, 9, 1), np.float32), np.zeros(4, np.int32), 10, "others")
    with pytest.raises(
        ValueError, match=r"tiny takes images of \(8, 8, 1\), and those of others are \(9, 9, 1\)"
    ):
        train(make(), wide, batch=2)
    many = Data(np.zeros((4, 8, 8, 1), np.float32), np.zeros(4, np.int32), 100, "others")
    with pytest.raises(ValueError, match="tells 10 classes apart, and others has 100"):
        evaluate(make(), many)


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"seeds": [0]}, "got 'seeds'"),
        ({"seed": [0, 1], "learning_rate": [0.1]}, "one length >= 1, got 1, 2"),
        ({"seed": [0, 1], "bits": [[1, 2], [3, 4]]}, r"bits must have shape \(2, 5\), got \(2, 2\)"),
        ({"seed": [0], "bits": [[0] * 5]}, "bits must be >= 1, got 0"),
        ({}, "one length >= 1, got none"),
    ],
)
def test_configs_that_cannot_be(data, configs, message):
    with pytest.raises(ValueError, match=message):
        train_many(make, configs, data, epochs=1, batch=32)
