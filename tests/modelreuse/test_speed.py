"""The notebook's procedure in PyTorch runs the zoo's networks."""

import numpy as np
import pytest

import modeldiff_jax as md
from bench.modelreuse.export import export
from bench.modelreuse.networks import ARCHITECTURES, fresh

torch = pytest.importorskip("torch", reason="PyTorch, whose speed is compared, is not installed")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_pytorch_gives_the_same_logits(arch, tmp_path):
    from bench.modelreuse.speed import Network

    path = tmp_path / "m.onnx"
    path.write_bytes(export(arch, 5, fresh(arch, 5, 0)))
    x = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    wanted = np.asarray(md.load(path)(x))
    np.testing.assert_allclose(Network(path)(torch.from_numpy(x)).detach().numpy(), wanted, atol=1e-4)
