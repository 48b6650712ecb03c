"""The guard in plaintext float64: what the protocol has to reproduce, and what a release is compared with.

Implements the functionality of SIGuard (Wang, Liu, Lai, Yi, Yuan, NDSS 2025), which is MemGuard (Jia et al.,
CCS 2019) with fixed loop counts, and the cheaper policies.  It shares no code with the MPC programs.

**Which function, exactly.**  The optimisation walks along ``g / (||g|| + eps)`` with eps -> 0, and stays
where ``g`` is 0.  An over-confident row has confidences ``q`` within 1e-13 of one-hot: ``q * (v - <v, q>)``
evaluated literally loses its digits there, and with eps = 1e-12 the step would shrink to nothing although its
*direction* is well defined.  Therefore nothing here subtracts nearly equal confidences: ``t`` is the largest
entry of ``z + e``, ``rest = 1 - q_t``, ``w = q / rest`` on the other classes, ``a_i = u_i - u_t``, and

    (J(q)^T u)_i / rest = w_i (a_i - rest <w, a>)   for i != t,   and entry t is minus the sum of the others,

which is the same vector in exact arithmetic, up to a positive factor that the normalisation removes.  The
sign of ``q - p`` is taken from logarithms of both for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siguard.errors import InputError
from siguard.guard.config import C3_GROWTH, DECAY_TOLERANCE, LEARNING_RATE_GROWTH, POLICIES, GuardConfig
from siguard.guard.inputs import check_logits, relative_to_largest
from siguard.nn.model import Defender, FloatArray

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]

#: Confidences of the label that ``linesearch`` tries: K = 8, evenly spaced, both ends included.
LINESEARCH_CONFIDENCES = (0.3, 0.98, 8)
#: The label's confidence is kept this factor above the point where the runner-up would overtake it.
LINESEARCH_MARGIN = 1.02


@dataclass(frozen=True, eq=False)
class ReferenceResult:
    """What a guard releases, and what it decided on the way (which under MPC nobody sees).

    confidences: shape (batch, classes), float64, at least 0, rows sum to 1.
    noise: shape (batch, classes), added to the logits, 0 where nothing was accepted; None where the policy
    does not work on the logits.
    accepted: shape (batch,), whether any optimisation run passed the validation; None like ``noise``.
    """

    confidences: FloatArray
    noise: FloatArray | None
    accepted: BoolArray | None


def guard(logits: npt.ArrayLike, defender: Defender, config: GuardConfig) -> ReferenceResult:
    """Run the guard named by ``config.policy`` on a batch of logits.

    logits: shape (batch, classes), finite, saturated as `relative_to_largest` says.
    defender: the membership classifier h for that many classes.
    Policies: ``siguard`` (noise optimisation and validation), ``decay`` (one optimisation with steps that
    shrink, accepted where ``|h|`` does not grow), ``linesearch`` (the confidence of the label with the smallest
    ``|h|``, the other classes keep their proportions), ``label`` (one-hot), ``none``.
    Deterministic.  Raises `InputError` naming ``logits``, ``defender`` or ``config``.
    """
    if not isinstance(config, GuardConfig):
        raise InputError(f"config: found {type(config).__name__}; expected a siguard.GuardConfig")
    checked = relative_to_largest(check_logits(logits, defender))
    if config.policy == "siguard":
        noise, accepted = _optimise_and_validate(checked, defender, config)
        return ReferenceResult(softmax(checked + noise), noise, accepted)
    if config.policy == "decay":
        noise, accepted = _optimise_once(checked, defender, config)
        return ReferenceResult(softmax(checked + noise), noise, accepted)
    if config.policy == "linesearch":
        return ReferenceResult(_linesearch(checked, defender), None, None)
    if config.policy == "label":
        return ReferenceResult(one_hot(checked.argmax(axis=1), checked.shape[1]), None, None)
    if config.policy == "none":
        return ReferenceResult(softmax(checked), None, None)
    raise InputError(f"config: policy {config.policy!r} has no float64 reference")


def softmax(logits: FloatArray) -> FloatArray:
    """Confidences of logits of shape (..., classes); relative to the largest, so that exp never overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    confidences: FloatArray = powers / powers.sum(axis=-1, keepdims=True)
    return confidences


def one_hot(labels: npt.NDArray[np.integer], classes: int) -> FloatArray:
    """Rows of shape (batch, classes) with 1.0 at each label, labels of shape (batch,) in 0..classes-1."""
    rows = np.zeros((len(labels), classes))
    rows[np.arange(len(labels)), labels] = 1.0
    return rows


def defender_gradient(defender: Defender, confidences: FloatArray) -> tuple[FloatArray, FloatArray]:
    """h and the gradient of |h| with respect to the confidences, shape (batch, classes).

    Returns ``(h, v)`` of shapes (batch,) and (batch, classes).  Conventions: sign(h) is +1 above 0 and -1
    otherwise, the derivative of ReLU is [x > 0].
    """
    masks = []
    activation = confidences
    for index, (W, b) in enumerate(defender.layers):
        if index:
            masks.append(activation > 0)
            activation = np.maximum(activation, 0.0)
        activation = activation @ W + b
    h = activation[:, 0]
    back = np.where(h > 0, 1.0, -1.0)[:, None]
    for W, _ in reversed(defender.layers[1:]):
        back = (back @ W.T) * masks.pop()
    return h, back @ defender.layers[0][0].T


def _optimise_and_validate(
    logits: FloatArray, defender: Defender, config: GuardConfig
) -> tuple[FloatArray, BoolArray]:
    """The ``siguard`` loop: returns (best noise (batch, classes), whether any run was accepted (batch,))."""
    full = config.resolved()
    if full.outer is None or full.learning_rate is None:
        raise InputError("config: outer, inner and learning_rate must have values")
    batch, _ = logits.shape
    label = logits.argmax(axis=1)
    h0 = defender(softmax(logits))[:, 0]
    best = np.zeros_like(logits)
    accepted = np.zeros(batch, dtype=np.bool_)
    c3 = np.full(batch, full.c3)
    rate = np.full(batch, full.learning_rate)
    for _ in range(full.outer):
        e = _optimise(logits, defender, full, c3, rate)
        moved = logits + e
        ok = (moved.argmax(axis=1) == label) & (h0 * defender(softmax(moved))[:, 0] <= 0)
        best = np.where(ok[:, None], e, best)
        accepted |= ok
        c3 = np.where(ok, C3_GROWTH * c3, c3)
        rate = np.where(ok, rate, LEARNING_RATE_GROWTH * rate)
    return best, accepted


def _optimise_once(logits: FloatArray, defender: Defender, config: GuardConfig) -> tuple[FloatArray, BoolArray]:
    """The ``decay`` run: returns (noise (batch, classes), 0 where rejected; whether it is accepted (batch,))."""
    full = config.resolved()
    if full.learning_rate is None:
        raise InputError("config: inner and learning_rate must have values")
    batch, _ = logits.shape
    e = _optimise(logits, defender, full, np.full(batch, full.c3), np.full(batch, full.learning_rate))
    moved = logits + e
    before, after = (np.abs(defender(softmax(z))[:, 0]) for z in (logits, moved))
    ok = (moved.argmax(axis=1) == logits.argmax(axis=1)) & (after < before + DECAY_TOLERANCE)
    return np.where(ok[:, None], e, 0.0), ok


def _optimise(
    logits: FloatArray, defender: Defender, full: GuardConfig, c3: FloatArray, rate: FloatArray
) -> FloatArray:
    """Noise (batch, classes) after ``inner`` steps, the first of length ``rate`` (batch,)."""
    if full.inner is None:
        raise InputError("config: inner must have a value")
    label = logits.argmax(axis=1)
    e = np.zeros_like(logits)
    for step in range(full.inner):
        length = rate[:, None] * POLICIES[full.policy].decay ** step
        e -= length * _unit(_direction(logits, e, label, defender, full.c1, full.c2, c3))
    return e


def _direction(
    logits: FloatArray,
    e: FloatArray,
    label: IndexArray,
    defender: Defender,
    c1: float,
    c2: float,
    c3: FloatArray,
) -> FloatArray:
    """A positive multiple, row by row, of g = c1 g1 + c2 g2 + c3 g3 at ``logits + e``; (batch, classes)."""
    rows, classes = np.arange(len(logits)), logits.shape[1]
    moved = logits + e
    top = moved.argmax(axis=1)
    log_odds, w = _rest(moved, top)
    odds = np.exp(log_odds)  # at most classes - 1, since ``top`` is the largest
    rest = odds / (1.0 + odds)
    q = rest[:, None] * w
    q[rows, top] = 1.0 / (1.0 + odds)

    u = c1 * defender_gradient(defender, q)[1] + c3[:, None] * _sign_of_change(logits, e, label)
    a = u - u[rows, top][:, None]
    g = w * (a - rest[:, None] * (w * a).sum(axis=1, keepdims=True))
    g[rows, top] = -g.sum(axis=1)  # entry ``top`` was 0 so far, since w is 0 there

    # Where the label is lost, a term without the factor ``rest`` joins in, so there the true scale matters.
    lost = top != label
    keep_label = c2 * (one_hot(top, classes) - one_hot(label, classes))
    direction: FloatArray = np.where(lost[:, None], rest[:, None] * g + keep_label, g)
    return direction


def _rest(position: FloatArray, reference: IndexArray) -> tuple[FloatArray, FloatArray]:
    """All classes but ``reference``: log of their odds against it (batch,), and their softmax (0 at it)."""
    x = position - position[np.arange(len(position)), reference][:, None]
    x[np.arange(len(position)), reference] = -np.inf
    largest = x.max(axis=1, keepdims=True)
    powers = np.exp(x - largest)
    total = powers.sum(axis=1, keepdims=True)
    return (largest + np.log(total))[:, 0], powers / total


def _sign_of_change(logits: FloatArray, e: FloatArray, label: IndexArray) -> FloatArray:
    """sign(q - p) with +1 at 0, for q = softmax(logits + e) and p = softmax(logits); shape (batch, classes).

    log q_i - log p_i is (e_i - e_l) minus the change of log(1 + odds of the rest against the label l), and
    logaddexp keeps the digits of that change where the odds are tiny and p_l rounds to 1.
    """
    rows = np.arange(len(logits))
    before, _ = _rest(logits, label)
    after, _ = _rest(logits + e, label)
    change = e - e[rows, label][:, None] - (np.logaddexp(0.0, after) - np.logaddexp(0.0, before))[:, None]
    return np.where(change >= 0, 1.0, -1.0)


def _unit(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length 1; a row of zeros stays 0."""
    scale = np.abs(vectors).max(axis=1, keepdims=True)
    scaled = vectors / np.where(scale > 0, scale, 1.0)  # so that no square underflows
    length = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    units: FloatArray = scaled / np.where(length > 0, length, 1.0)
    return units


def _linesearch(logits: FloatArray, defender: Defender) -> FloatArray:
    """The ``linesearch`` policy; returns confidences of shape (batch, classes).

    Each candidate gives the label the confidence c and shares 1 - c among the others as the logits do.  c is
    clamped from below to 1.02 m / (1 + m), m the largest share, so the label stays strictly the largest.
    """
    batch, classes = logits.shape
    label = logits.argmax(axis=1)
    _, rest = _rest(logits, label)
    m = rest.max(axis=1)
    c = np.maximum(np.linspace(*LINESEARCH_CONFIDENCES), (LINESEARCH_MARGIN * m / (1.0 + m))[:, None])
    label_rows = one_hot(label, classes)
    candidates = c[:, :, None] * label_rows[:, None, :] + (1.0 - c)[:, :, None] * rest[:, None, :]
    h = defender(candidates.reshape(-1, classes)).reshape(batch, -1)
    chosen: FloatArray = candidates[np.arange(batch), np.abs(h).argmin(axis=1)]
    return chosen
