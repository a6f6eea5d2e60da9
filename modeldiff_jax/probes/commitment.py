"""Commitments: hashes of probes, published before the probes are revealed, against forged claims.

An accuser who chooses pairs after seeing a suspect can choose pairs on which it reacts as any model does (Liu et al.,
"False claims against model ownership resolution", arXiv 2304.06607; FIT-Print, 2025). An accuser who published
`commit(probes).digest` before the suspect was published could not: the hash binds to the pairs, the metric and the
target, and the nonce keeps them secret until they are revealed.

Where the date proves nothing, three checks limit the accuser. `verify_commitment` with `target` refuses pairs that the
recipe does not make on the target. It has to tolerate rounding, so the verdict is best given under the probe set that
`remake_probes` makes for the verifier: nobody crafted that set. And `drawn_key` takes the key from randomness published
after the commitment, so that trying many keys gains nothing. The accuser does not choose the seeds where they are drawn
from the built-in pack or from a whole public data set, but does where they are the accuser's. A target that was itself
taken from the suspect is refused by no check but the date.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.models.model import Model
from modeldiff_jax.probes.adapt import Adapter
from modeldiff_jax.probes.probe_set import ProbeSet
from modeldiff_jax.probes.remake import made_alike, remake_probes

_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Commitment:
    """A commitment to probes, and the secret that opens it.

    Attributes:
      digest: `pc1-` and 64 hexadecimal digits; to be published, with a date that others can confirm.
      nonce: 64 hexadecimal digits; secret until the probes are revealed.
    """

    digest: str
    nonce: str


def commit(probes: ProbeSet, target_sha256: str = "") -> Commitment:
    """Commits to a probe set, and to the model that it was made on.

    Args:
      probes: the probe set, as it will be revealed.
      target_sha256: identity of the owner's model, `model.origin.content_sha256`; "" binds to the probes alone.
    """
    nonce = secrets.token_hex(_NONCE_BYTES)
    return Commitment(_digest(probes, target_sha256, nonce), nonce)


def verify_commitment(
    digest: str,
    nonce: str,
    probes: ProbeSet,
    target_sha256: str = "",
    *,
    target: Model | Adapter | None = None,
    seeds: Any = None,
) -> bool:
    """Returns whether a published digest was made for these probes and this target, and the probes on this target.

    Args:
      digest: as published.
      nonce, probes, target_sha256: as revealed.
      target: the owner's model. With it the pairs are made again by their recipe, and must be equal to those given but
        for `remake.TOLERANCE`; `target_sha256` must be this model's, and may be left out.
      seeds: the source that the seeds are said to be drawn from, as `make_probes` takes it; None for the built-in pack.
    Raises:
      InvalidInputError: the nonce is not one that `commit` gives, or the recipe cannot be followed.
    """
    if target is not None:
        sha256 = (target.model if isinstance(target, Adapter) else target).origin.content_sha256
        if target_sha256 not in ("", sha256):
            return False
        target_sha256 = sha256
    if not hmac.compare_digest(digest.encode(), _digest(probes, target_sha256, nonce).encode()):
        return False
    return target is None or made_alike(probes, remake_probes(probes, target, seeds=seeds))


def drawn_key(digest: str, beacon: str) -> int:
    """Derives a key that nobody chose, for `remake_probes`: trying many keys before committing gains nothing.

    Args:
      digest: the published digest of a commitment to probes and target.
      beacon: public randomness published after the digest, for example a round of drand or of NIST's beacon, written as
        its source writes it; its source and round are fixed beforehand.
    Returns:
      An integer in [0, 2**62).
    """
    content = "\n".join(("modeldiff-key", digest, beacon))
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") >> 2


def _digest(probes: ProbeSet, target_sha256: str, nonce: str) -> str:
    if len(nonce) != 2 * _NONCE_BYTES or not set(nonce) <= set("0123456789abcdef"):
        rule = f"A nonce is {2 * _NONCE_BYTES} hexadecimal digits"
        raise InvalidInputError(rule, got=repr(nonce)[:80], where="commitment")
    content = "\n".join(("modeldiff-commitment", nonce, target_sha256, probes.content_sha256))
    return f"pc1-{hashlib.sha256(content.encode()).hexdigest()}"
