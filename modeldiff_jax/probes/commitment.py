"""Probes published as a hash first and revealed later: the answer to forged claims.

Whoever chooses pairs after seeing a suspect can choose pairs on which it reacts as any model does (Liu et al., "False
claims against model ownership resolution", arXiv 2304.06607; FIT-Print, 2025). An accuser who has published
`commit(probes).digest` before the suspect was could not: the hash binds to the pairs, the metric and the target, and
the nonce keeps them secret until they are shown.

Where the date is no proof, three things take freedoms from the accuser. `verify_commitment` with `target` refuses pairs
that the recipe does not make on the target. It must forgive rounding, so that a verdict is best had under what
`remake_probes` gives whoever judges: nobody crafted that set. And `drawn_key` takes its key from public randomness of
after the commitment, so that trying many keys gains nothing. Seeds are out of the accuser's hands where they are drawn
from the built-in pack or from a whole public data set, not where they are his own. What no check but the date refuses
is a target that was itself taken from the suspect.
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
    """What binds an accuser to probes.

    Attributes:
      digest: `pc1-` and 64 hexadecimal digits; to be published, with a date that others can vouch for.
      nonce: 64 hexadecimal digits; secret until the probes are revealed.
    """

    digest: str
    nonce: str


def commit(probes: ProbeSet, target_sha256: str = "") -> Commitment:
    """Binds to a probe set, and to the model whose probes they are.

    Args:
      probes: as they will be revealed.
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
    """Whether a published digest was made for these probes and this target, and the probes on this target.

    Args:
      digest: as published.
      nonce, probes, target_sha256: as revealed.
      target: the owner's model itself. With it the pairs are made again, and must be what `make_probes` makes on it by
        their recipe, but for `remake.TOLERANCE`; `target_sha256` must be its own, and may be left out.
      seeds: what the seeds are said to be drawn from, as `make_probes` takes it; None for the built-in pack.
    Raises:
      InvalidInputError: the nonce is not one that `commit` gives, or the recipe cannot be followed.
    """
    if target is not None:
        own = (target.model if isinstance(target, Adapter) else target).origin.content_sha256
        if target_sha256 not in ("", own):
            return False
        target_sha256 = own
    if not hmac.compare_digest(digest.encode(), _digest(probes, target_sha256, nonce).encode()):
        return False
    return target is None or made_alike(probes, remake_probes(probes, target, seeds=seeds))


def drawn_key(digest: str, beacon: str) -> int:
    """A key that nobody chose, for `remake_probes`: who tries many keys before committing gains nothing.

    Args:
      digest: of a commitment to probes and target, as published.
      beacon: public randomness published after the digest, such as a round of drand or of NIST's beacon, written as
        its source writes it; which one must be fixed beforehand.
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
