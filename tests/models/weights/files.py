"""Writers of PyTorch's two file formats, so that tests need no PyTorch and can write what it never would."""

import io
import struct
import zipfile

import numpy as np

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."
KINDS = {
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "bool": "Bool",
    "uint8": "Byte",
    "complex64": "ComplexFloat",
}
STOP, MARK, TUPLE, REDUCE, DICT, NONE = b".", b"(", b"t", b"R", b"}", b"N"


def text(value):
    """A string."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    """An integer of any size."""
    length = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def name(module, attribute):
    """Returns the opcodes of an import."""
    return f"c{module}\n{attribute}\n".encode()


def integers(values):
    """A tuple of integers."""
    return MARK + b"".join(map(integer, values)) + TUPLE


def storage(key, dtype, count, view=NONE):
    """A storage, by reference; the stream format says which part of it, or None."""
    kind = name("torch", f"{KINDS[str(dtype)]}Storage")
    return MARK + text("storage") + kind + text(key) + text("cpu") + integer(count) + view + TUPLE + b"Q"


def rebuilt(stored, offset, shape, strides, version="_v2", metadata=None):
    """A tensor made of a storage; `metadata` names the operations that were put off."""
    tail = b"\x89" + name("collections", "OrderedDict") + b")" + REDUCE  # requires_grad, hooks
    if metadata is not None:
        tail += DICT + MARK + b"".join(text(key) + (b"\x88" if on else b"\x89") for key, on in metadata.items()) + b"u"
    call = name("torch._utils", f"_rebuild_tensor{version}")
    return call + MARK + stored + integer(offset) + integers(shape) + integers(strides) + tail + TUPLE + REDUCE


def dictionary(entries):
    """An OrderedDict of name -> value, the values written already."""
    pairs = b"".join(text(key) + value for key, value in entries.items())
    return name("collections", "OrderedDict") + b")" + REDUCE + MARK + pairs + b"u"


def whole(value):
    """A pickle of one value."""
    return b"\x80\x02" + value + STOP


def strides_of(shape):
    """Of a contiguous tensor, in elements."""
    return [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]


def state_dict_pickle(arrays):
    """The pickle of arrays by name, each with a storage of its own, in order."""
    return whole(
        dictionary(
            {
                key: rebuilt(storage(str(i), array.dtype, array.size), 0, array.shape, strides_of(array.shape))
                for i, (key, array) in enumerate(arrays.items())
            }
        )
    )


def zip_file_of(entries, compression=zipfile.ZIP_STORED):
    """An archive of bytes by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)
    return stream.getvalue()


def zip_file(pickle, storages, **more):
    """PyTorch's archive."""
    data = {f"archive/data/{i}": np.ascontiguousarray(array).tobytes() for i, array in enumerate(storages)}
    return zip_file_of({"archive/data.pkl": pickle, "archive/byteorder": b"little", **data, **more})


def legacy_file(pickle, storages):
    """PyTorch's stream."""
    system = whole(DICT + MARK + text("protocol_version") + b"M\xe9\x03" + text("little_endian") + b"\x88" + b"u")
    keys = whole(b"]" + MARK + b"".join(text(str(i)) for i in range(len(storages))) + b"e")
    data = b"".join(struct.pack("<q", np.size(array)) + np.ascontiguousarray(array).tobytes() for array in storages)
    return MAGIC + VERSION + system + pickle + keys + data
