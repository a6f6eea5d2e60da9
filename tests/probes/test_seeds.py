"""Seeds of every source: packs, arrays, files and folders."""

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from modeldiff_jax.errors import InvalidInputError, LimitExceededError
from modeldiff_jax.limits import Limits
from modeldiff_jax.models.inputs.space import generic_space, image_space, signal_space, token_space
from modeldiff_jax.probes.packs import PACKS
from modeldiff_jax.probes.seeds import load_seeds

SPACES = [
    image_space(8, 8, 1),
    image_space(32, 48),
    image_space(9, 100, 4),
    signal_space(128),
    signal_space(4001),
    token_space(1),
    token_space(40, 2),
    token_space(300, 256),
    token_space(300, 30_000),
    generic_space((20,)),
    generic_space((3, 4, 5), -4, 9),
    generic_space(()),
]
RNG = np.random.default_rng(0)


# Packs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_packs_fill_the_space(space):
    seeds, source = load_seeds(None, space, 40, 0)
    assert seeds.shape == (40, *space.shape)
    assert seeds.dtype == space.dtype
    assert np.isfinite(seeds).all()
    assert space.low <= seeds.min() < seeds.max() <= np.float32(space.high)
    assert source.startswith("built-in ")
    if space.size > 8:
        assert len(np.unique(seeds.reshape(40, -1), axis=0)) >= 39


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_packs_depend_on_the_key_and_nothing_else(space):
    first = load_seeds(None, space, 12, 3)[0]
    np.testing.assert_array_equal(first, load_seeds(None, space, 12, 3)[0])
    np.testing.assert_array_equal(first[:5], load_seeds(None, space, 5, 3)[0])
    assert (first != load_seeds(None, space, 12, 4)[0]).any()


@pytest.mark.parametrize(
    "space", [image_space(32, 32), signal_space(1000), token_space(400), generic_space((50,))], ids=str
)
def test_packs_are_diverse(space):
    """Seeds differ from one another about as much as they spread at all, so no kind of seed dominates."""
    seeds = load_seeds(None, space, 60, 0)[0].reshape(60, -1).astype(np.float64)
    seeds = (seeds - seeds.mean(0)) / seeds.std()
    correlations = np.corrcoef(seeds)[~np.eye(60, dtype=bool)]
    assert np.abs(correlations).mean() < 0.5
    assert np.linalg.matrix_rank(seeds, tol=1e-3 * np.linalg.norm(seeds, 2)) > 30


def test_token_packs_use_the_whole_vocabulary_and_pad_bytes_with_256():
    seeds = load_seeds(None, token_space(500, 257), 60, 0)[0]
    assert len(np.unique(seeds)) == 257
    ends = seeds[:, -1] == 256
    assert 5 < ends.sum() < 40


@pytest.mark.parametrize("name", sorted(PACKS))
def test_a_pack_of_another_kind_is_refused(name):
    space = {"image": generic_space((8,))}.get(PACKS[name][0], image_space(8, 8))
    with pytest.raises(InvalidInputError, match=name):
        load_seeds(name, space, 4, 0)


@pytest.mark.parametrize(("n", "key"), [(0, 0), (-1, 0), (3, -1)])
def test_bad_numbers_are_refused(n, key):
    with pytest.raises(InvalidInputError):
        load_seeds(None, generic_space((3,)), n, key)


# Arrays ------------------------------------------------------------------------------------------------------------

BYTES = RNG.integers(0, 256, (6, 10, 12, 3)).astype(np.uint8)
FLOATS = BYTES.astype(np.float32) / 255
SOUND = RNG.uniform(-1, 1, (6, 200)).astype(np.float32)


@pytest.mark.parametrize(
    ("given", "space", "expected"),
    [
        (BYTES, image_space(10, 12), FLOATS),
        (BYTES.astype(np.int64), image_space(10, 12), FLOATS),
        (BYTES.astype(np.float64), image_space(10, 12), FLOATS),
        (FLOATS, image_space(10, 12), FLOATS),
        (FLOATS.astype(np.float64), image_space(10, 12), FLOATS),
        (np.moveaxis(BYTES, 3, 1), image_space(10, 12), FLOATS),
        (BYTES[..., 0], image_space(10, 12, 1), FLOATS[..., :1]),
        (BYTES[..., 0], image_space(10, 12), np.repeat(FLOATS[..., :1], 3, 3)),
        (FLOATS, image_space(10, 12, 1), FLOATS @ np.array([[0.299], [0.587], [0.114]])),
        (FLOATS, image_space(10, 10), FLOATS[:, :, 1:11]),
        (FLOATS, image_space(8, 12), FLOATS[:, 1:9]),
        (SOUND, signal_space(200), SOUND),
        (SOUND[:, None], signal_space(200), SOUND),
        (SOUND[..., None], signal_space(200), SOUND),
        (np.int16([[-32768, 0, 16384]] * 6), signal_space(3), np.float32([[-1, 0, 0.5]] * 6)),
        (np.uint8([[0, 128, 192]] * 6), signal_space(3), np.float32([[-1, 0, 0.5]] * 6)),
        (BYTES[:, 0, :, 0], token_space(12), BYTES[:, 0, :, 0]),
        (BYTES[:, 0, :, 0], token_space(9), BYTES[:, 0, :9, 0]),
        (SOUND, generic_space((200,)), SOUND),
        (SOUND, generic_space((10, 20)), SOUND.reshape(6, 10, 20)),
        (SOUND > 0, generic_space((200,)), SOUND > 0),
    ],
)
def test_arrays_are_brought_into_the_space(given, space, expected):
    seeds, source = load_seeds(given, space, 6, 0)
    assert seeds.dtype == space.dtype
    assert seeds.flags.c_contiguous
    np.testing.assert_allclose(seeds, expected, atol=1e-6)
    assert source == f"array {given.dtype}{list(given.shape)}, all 6"


def test_images_are_resized_as_pillow_does():
    seeds, _ = load_seeds(BYTES, image_space(5, 6), 6, 0)
    expected = [np.asarray(Image.fromarray(b).resize((6, 5), Image.Resampling.BILINEAR)) / 255 for b in BYTES]
    np.testing.assert_allclose(seeds, expected, atol=1 / 255)


def test_long_signals_give_a_window():
    seeds, _ = load_seeds(SOUND, signal_space(50), 6, 0)
    for row, window in zip(SOUND, seeds, strict=True):
        assert any(np.array_equal(row[i : i + 50], window) for i in range(151))


@pytest.mark.parametrize("n", [2, 17, 30])
def test_more_seeds_than_pairs_are_drawn_without_replacement(n):
    given = np.linspace(-1, 1, 30, dtype=np.float32)[:, None]
    seeds, source = load_seeds(given, generic_space((1,)), n, 0)
    assert len(np.unique(seeds)) == n
    assert np.isin(seeds, given).all()
    assert source.endswith(f"{n} of 30" if n < 30 else "all 30")
    np.testing.assert_array_equal(seeds, load_seeds(given, generic_space((1,)), n, 0)[0])
    if n < 30:
        assert (seeds != load_seeds(given, generic_space((1,)), n, 1)[0]).any()


def test_too_few_seeds_are_an_error_that_names_the_number():
    with pytest.raises(InvalidInputError, match="--pairs 6"):
        load_seeds(BYTES, image_space(10, 12), 7, 0)


@pytest.mark.parametrize(
    ("given", "space", "message"),
    [
        (np.zeros((0, 10, 12, 3)), image_space(10, 12), "first axis counts"),
        (np.zeros((6, 0, 12, 3)), image_space(10, 12), "first axis counts"),
        (np.float32(1), image_space(10, 12), "first axis counts"),
        (np.array([None] * 6), image_space(10, 12), "numbers"),
        (np.array(["a"] * 6), image_space(10, 12), "numbers"),
        (np.zeros((6, 5), complex), generic_space((5,)), "numbers"),
        (np.zeros((6, 10, 12, 2)), image_space(10, 12), "shape"),
        (np.zeros((6, 10)), image_space(10, 12), "shape"),
        (FLOATS[0], image_space(10, 12), "needs one seed|N, H, W"),
        (np.full((6, 10, 12, 3), np.nan), image_space(10, 12), "NaN or infinity in 6 seeds"),
        (FLOATS * 2 - 1, image_space(10, 12), r"\[0, 255\]"),
        (FLOATS * 254.5, image_space(10, 12), r"\[0, 255\]"),
        (BYTES.astype(np.int32) * 2, image_space(10, 12), r"\[0, 255\]"),
        (SOUND[:, :100], signal_space(200), "or longer"),
        (SOUND.reshape(6, 2, 100), signal_space(100), "one channel"),
        (SOUND * 2, signal_space(200), r"\[-1, 1\]"),
        (SOUND, token_space(200), "integers"),
        (BYTES[:, 0, :, 0], token_space(12, 100), r"\[0, 99\]"),
        (-BYTES[:, 0, :, 0].astype(int), token_space(12), r"\[0, 255\]"),
        (SOUND, generic_space((199,)), "199"),
        (SOUND * 3, generic_space((200,)), r"value_range=\(-2\.\d+, 2\.\d+\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(given, space, message):
    with pytest.raises(InvalidInputError, match=message):
        load_seeds(given, space, 6, 0)


# Files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["seeds.npy", "seeds.npz", "named.npz", "no-suffix"])
def test_array_files_are_known_by_their_content(tmp_path, name):
    path = tmp_path / name
    if name == "named.npz":
        np.savez(path, labels=np.arange(6), Images=FLOATS)
    elif name == "seeds.npz":
        np.savez_compressed(path, whatever=FLOATS)
    else:
        with path.open("wb") as file:
            np.save(file, FLOATS)
    seeds, source = load_seeds(path, image_space(10, 12), 6, 0)
    np.testing.assert_array_equal(seeds, FLOATS)
    assert source == f"{path}, all 6"
    np.testing.assert_array_equal(seeds, load_seeds(str(path), image_space(10, 12), 6, 0)[0])


def _npy(array, **kwargs):
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def _huge_header():
    return _npy(np.zeros(4, np.float32)).replace(b"(4,)", b"(4000000000000,)").replace(b" " * 12 + b"\n", b"\n")


HOSTILE = {
    "empty": (b"", "empty"),
    "text": (b"hello", "neither"),
    "truncated": (_npy(FLOATS)[:-100], "whole"),
    "truncated header": (_npy(FLOATS)[:40], "whole"),
    "objects": (_npy(np.array([{}] * 6, object), allow_pickle=True), "objects"),
    "version": (b"\x93NUMPY\x09\x00" + _npy(FLOATS)[8:], "whole"),
    "header code": (_npy(FLOATS).replace(b"False", b"exit()", 1), "whole"),
    "zip": (b"PK\x03\x04 and no more", "whole"),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_damaged_and_hostile_files_are_refused(tmp_path, case):
    data, message = HOSTILE[case]
    path = tmp_path / "seeds.npy"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_seeds(path, image_space(10, 12), 6, 0)
    assert str(path) in caught.value.where


def test_archives_are_refused_likewise(tmp_path):
    path = tmp_path / "seeds.npz"
    np.savez(path, a=np.array([{}] * 6, object))
    with pytest.raises(InvalidInputError, match="objects"):
        load_seeds(path, image_space(10, 12), 6, 0)
    np.savez(path, a=FLOATS, b=FLOATS)
    with pytest.raises(InvalidInputError, match="a, b"):
        load_seeds(path, image_space(10, 12), 6, 0)
    np.savez_compressed(path, a=FLOATS)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InvalidInputError):
        load_seeds(path, image_space(10, 12), 6, 0)


@pytest.mark.parametrize("name", ["seeds.npy", "seeds.npz"])
def test_large_files_are_refused_before_they_are_read(tmp_path, name):
    path = tmp_path / name
    save = np.save if name.endswith("npy") else np.savez_compressed
    save(path, np.zeros((1000, 100), np.float32))
    with pytest.raises(LimitExceededError, match="seed_bytes"):
        load_seeds(path, generic_space((100,)), 6, 0, limits=Limits(seed_bytes=399_999))
    assert len(load_seeds(path, generic_space((100,)), 6, 0, limits=Limits(seed_bytes=401_000))[0]) == 6


def test_a_header_may_announce_anything(tmp_path):
    path = tmp_path / "seeds.npy"
    path.write_bytes(_huge_header())
    with pytest.raises(LimitExceededError, match="seed_bytes"):
        load_seeds(path, generic_space((1,)), 6, 0)


def test_a_missing_path_names_the_packs(tmp_path):
    with pytest.raises(InvalidInputError, match="image-v1"):
        load_seeds(tmp_path / "nowhere", image_space(8, 8), 6, 0)


@pytest.mark.parametrize("kind", ["a named pipe", "a character device"])
def test_special_files_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "seeds.npy"
    os.mkfifo(path) if kind == "a named pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(InvalidInputError, match=kind):
        load_seeds(path, image_space(10, 12), 6, 0)


# Folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for i, suffix in enumerate(["png", "bmp", "PNG", "gif", "webp", "jpg"]):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        grey = Image.fromarray(np.full((20, 30), 40 * i, np.uint8))
        options = {"lossless": True} if suffix == "webp" else {}
        grey.convert("RGB").save(tmp_path / f"class{i % 2}" / f"image{i}.{suffix}", **options)
    (tmp_path / "labels.txt").write_text("not an image")
    return tmp_path


def test_folders_are_read_in_order_of_name(folder):
    seeds, source = load_seeds(folder, image_space(10, 15), 6, 0)
    levels = np.array([0, 80, 160, 40, 120, 200])  # class0, then class1
    np.testing.assert_allclose(seeds, np.broadcast_to(levels[:, None, None, None] / 255, (6, 10, 15, 3)), atol=0.004)
    assert source == f"folder {folder}, all 6"
    assert len(load_seeds(folder, image_space(10, 15, 1), 3, 0)[0]) == 3


def test_pictures_keep_their_middle_orientation_and_depth(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned: rows are columns
    Image.fromarray(pixels.transpose(1, 0, 2).copy()).save(tmp_path / "b.png", exif=turned)
    Image.fromarray(np.where(pixels[..., 0], 65535, 0).astype(np.uint16)).save(tmp_path / "c.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "d.gif")
    square, _ = load_seeds(tmp_path, image_space(20, 20), 4, 0)
    assert square.min() > 0.99
    whole, _ = load_seeds(tmp_path, image_space(20, 40), 4, 0)
    np.testing.assert_allclose(whole, np.broadcast_to(pixels / 255, whole.shape), atol=0.01)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_damaged_image_is_named(folder, damage):
    bad = folder / "class1" / "image5.jpg"
    bad.write_bytes({"truncated": bad.read_bytes()[:200], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(InvalidInputError, match=r"image5\.jpg"):
        load_seeds(folder, image_space(10, 15), 6, 0)


@pytest.mark.parametrize("kind", ["a named pipe", "a character device"])
def test_special_files_among_images_are_refused_by_name(folder, kind):
    path = folder / "class0" / "x.png"
    os.mkfifo(path) if kind == "a named pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(InvalidInputError, match=kind) as caught:
        load_seeds(folder, image_space(10, 15), 7, 0)
    assert caught.value.where.endswith("x.png")


def test_an_image_cut_while_it_is_read_is_an_error(folder, monkeypatch):
    """Pillow would map this bitmap, if it got its name."""
    pixels = np.zeros((700, 500, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "class0" / "large.bmp")
    real = ImageOps.exif_transpose

    def cut(image):
        if image.width == 500:
            os.truncate(folder / "class0" / "large.bmp", 1000)
        return real(image)

    monkeypatch.setattr(ImageOps, "exif_transpose", cut)
    with pytest.raises(InvalidInputError, match=r"large\.bmp"):
        load_seeds(folder, image_space(10, 15), 7, 0)


def test_warning_filters_are_left_alone_by_threads(folder):
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(load_seeds, folder, image_space(10, 15), 6, i) for i in range(40)]:
            done.result()
    assert warnings.filters == before


def test_folder_limits(folder):
    with pytest.raises(LimitExceededError, match="seed_files"):
        load_seeds(folder, image_space(10, 15), 6, 0, limits=Limits(seed_files=6))
    with pytest.raises(LimitExceededError, match="seed_bytes"):
        load_seeds(folder, image_space(10, 15), 6, 0, limits=Limits(seed_bytes=6 * 20 * 30 * 3 - 1))
    with pytest.raises(LimitExceededError, match="image_pixels"):
        load_seeds(folder, image_space(10, 15), 6, 0, limits=Limits(image_pixels=599))


def test_a_folder_without_images_and_a_space_without_pictures(tmp_path, folder):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("")
    with pytest.raises(InvalidInputError, match="among 1 files"):
        load_seeds(tmp_path / "none", image_space(8, 8), 2, 0)
    with pytest.raises(InvalidInputError, match="folder of images"):
        load_seeds(folder, token_space(8), 2, 0)


def test_fewer_seeds_are_accepted_with_at_most():
    assert len(load_seeds(BYTES, image_space(10, 12), 7, 0, at_most=True)[0]) == 6
    assert len(load_seeds(BYTES, image_space(10, 12), 4, 0, at_most=True)[0]) == 4
    with pytest.raises(InvalidInputError, match="1 seeds"):
        load_seeds(BYTES[:1], image_space(10, 12), 7, 0, at_most=True)
