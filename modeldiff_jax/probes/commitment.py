"""Probes published as a hash first and revealed later: the answer to forged claims.

Whoever chooses pairs after seeing a suspect can choose pairs on which it reacts as any model does (Liu et al., "False
claims against model ownership resolution", arXiv 2304.06607; FIT-Print, 2025). An accuser who has published
`commit(probes).digest` before the suspect was could not: the hash binds to the pairs, the metric and the target, and
the nonce keeps them secret until they are shown.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from modeldiff_jax.errors import InvalidInputError
from modeldiff_jax.probes.probe_set import ProbeSet

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
    """Binds to a probe set, and to the file of the model it shall speak for.

    Args:
      probes: as they will be revealed.
      target_sha256: of the owner's model file; "" binds to the probes alone.
    """
    nonce = secrets.token_hex(_NONCE_BYTES)
    return Commitment(_digest(probes, target_sha256, nonce), nonce)


def verify_commitment(digest: str, nonce: str, probes: ProbeSet, target_sha256: str = "") -> bool:
    """Whether a published digest was made for these probes and this target.

    Args:
      digest: as published.
      nonce, probes, target_sha256: as revealed.
    Raises:
      InvalidInputError: the nonce is not one that `commit` gives.
    """
    return hmac.compare_digest(digest.encode(), _digest(probes, target_sha256, nonce).encode())


def _digest(probes: ProbeSet, target_sha256: str, nonce: str) -> str:
    if len(nonce) != 2 * _NONCE_BYTES or not set(nonce) <= set("0123456789abcdef"):
        rule = f"A nonce is {2 * _NONCE_BYTES} hexadecimal digits"
        raise InvalidInputError(rule, got=repr(nonce)[:80], where="commitment")
    content = "\n".join(("modeldiff-commitment", nonce, target_sha256, probes.content_sha256))
    return f"pc1-{hashlib.sha256(content.encode()).hexdigest()}"
