"""The controls: what is broken, which rung must notice it, and where such a bug is on record.

Three tables: those that the plan of the harness names; classes of bug that changelogs, issue trackers and
catalogues of pitfalls record of other systems, as far as they have a counterpart here; and leaks of function keys.
"""

from __future__ import annotations

from siguard.proofsim.controls import addresses, deployment, keys, masks, openings
from siguard.proofsim.controls.control import Control

PLANNED = (
    Control(
        "product without its zero share",
        "exact",
        "Plan. CrypTen's replicated products add no sharing of zero before they are re-shared (CrypTen issue 518); "
        "asked of ABY3 too (aby3 issue 21).",
        masks.product_without_zero_share,
    ),
    Control(
        "constant mask",
        "exact",
        "Plan. ABY drew its randomness from a constant seed by default (ABY issue 4, pull request 5).",
        masks.constant_mask,
    ),
    Control(
        "mask with one random bit per byte",
        "exact",
        "Plan. MP-SPDZ 0.2.0: insufficient randomisation of FKOS15 inputs, masks of one-bit types that left most "
        "of a buffer constant (mpcsec.org, Randomness Has Insufficient Entropy).",
        masks.one_random_bit_per_byte,
    ),
    Control(
        "mask used in two steps",
        "exact",
        "Plan. IPA drew the same shared randomness in several steps through an index used twice (ipa pull request "
        "109), and then made reuse an error (ipa issue 113).",
        addresses.steps_share_masks,
    ),
    Control(
        "loop that stops when the noise is good",
        "shape",
        "Plan. The published guard opens after each run whether its noise is accepted, and stops.",
        deployment.loop_that_stops,
    ),
    Control(
        "condition opened",
        "exact",
        "Plan. A branch on a revealed bit in place of a selection.",
        openings.condition_opened,
    ),
    Control(
        "c3 and learning rate updated in the clear",
        "content",
        "Plan. The published loop updates both by whether the last noise was accepted; the servers learn it.",
        openings.acceptance_opened,
    ),
    Control(
        "noise revealed to the servers",
        "content",
        "Plan. Whoever sees the noise takes it off the answer.",
        openings.noise_revealed,
    ),
    Control(
        "message whose length depends on the value",
        "shape",
        "Plan. Trailing zeros left out, as any compression would.",
        deployment.length_depends_on_the_value,
    ),
    Control(
        "a secret in a log line",
        "taint",
        "Plan. Key shares and raw protocol messages in the debug log of a threshold signature node (near/mpc "
        "issues 2239 and 2307).",
        deployment.secret_in_a_log_line,
    ),
    Control(
        "randomness addressed by call order",
        "simulation",
        "Plan. Branches that run side by side reach their draws in an order of their own at each server; what the "
        "dealer takes for a mask is then not the mask. Answers are wrong too.",
        addresses.call_order,
    ),
    Control(
        "output mask equal to an input's mask",
        "exact",
        "Plan. The wire of a product takes over the mask of a factor.",
        masks.output_mask_of_an_input,
    ),
    Control(
        "one mask for value and bit",
        "exact",
        "Plan. One seed for all components of a tensor (tf-encrypted issue 380).",
        masks.one_mask_for_bit_and_value,
    ),
    Control(
        "two purposes at one address",
        "exact",
        "Plan. No domain separation where one function serves several purposes (mpcsec.org, Missing Domain "
        "Separation When a Hash Function Is Reused; tss-lib before 2.0).",
        addresses.purpose_ignored,
    ),
    Control(
        "one address in two sessions",
        "exact",
        "Plan. Material for one run used in another (mpcsec.org, Threshold Presignature Reuse; MP-SPDZ issue 953: "
        "edaBits from a file have nothing that keeps a second run from using them).",
        addresses.session_not_in_the_keys,
    ),
    Control(
        "role-free addresses after the dealer rotates",
        "exact",
        "Plan. A retried session with another dealer draws what the first try drew, in other roles.",
        addresses.dealer_not_in_the_keys,
    ),
    Control(
        "truncation revealed with the answer alone",
        "exact",
        "Plan; a control of the claim, the code is as shipped. Probabilistic truncation does not realise rounding "
        "with coins of its own: the adversary must be given the coins (MP-SPDZ issue 1494; Santos et al., ePrint "
        "2024/1127).",
        deployment.coins_withheld,
    ),
    Control(
        "answer sent to a server",
        "exact",
        "Plan. Revealed to all who take part instead of to the one who asked.",
        openings.answer_sent_to_a_server,
    ),
)

RECORDED = (
    Control(
        "reveal without its mask",
        "simulation",
        "MP-SPDZ 0.3.9: missing randomisation before revealing to a client. The receiver sees masks of the wire, "
        "which no simulator makes of the answer; with a fresh wire they say nothing of other values.",
        masks.reveal_without_its_mask,
    ),
    Control(
        "skewed random bits",
        "exact",
        "MP-SPDZ 0.2.5: skewed random bit generation; 0.2.0: insufficient randomness in SemiBin random bits.",
        masks.skewed_random_bits,
    ),
    Control(
        "masks shorter than the ring",
        "simulation",
        "MP-SPDZ 0.3.7: insufficient drowning in pairwise protocols, noise too small for what it is to hide.",
        masks.masks_shorter_than_the_ring,
    ),
    Control(
        "masks from floating point",
        "simulation",
        "Shares drawn by a floating-point generator (epfml/disco issue 1074): a float64 has 53 bits, and the low "
        "11 of a 64-bit element travel in the clear.",
        masks.masks_from_floating_point,
    ),
    Control(
        "dealt value without its mask",
        "exact",
        "Piranha's triples are all zero, so that one party's share is the value (piranha issue 6).",
        masks.dealt_in_the_clear,
    ),
    Control(
        "loop index not part of the address",
        "exact",
        "MP-SPDZ 0.1.2: CowGear would reuse triples.",
        addresses.loop_index_ignored,
    ),
    Control(
        "one key for all pairs",
        "exact",
        "Masks known to all servers: conversion in tf-encrypted (issue 846), keys from a fixed seed in SCALE-MAMBA "
        "(asked in issue 39), common generators with constant seeds in iris-mpc (pull request 1246).",
        addresses.one_key_for_all_pairs,
    ),
    Control(
        "one key of a client for all servers",
        "exact",
        "PySyft issue 7089: owners of data see the shares made for all parties.",
        addresses.one_client_key_for_all_servers,
    ),
    Control(
        "client's masks from the servers' keys",
        "exact",
        "PySyft issue 7089: the seed of the shares is made on the side of the one who asks. Here a user who "
        "colludes with one server would hold the third key, and with it every mask (siguard.mpc.io).",
        addresses.client_masks_from_the_servers_keys,
    ),
    Control(
        "wraps of a truncation opened",
        "exact",
        "SyMPC issue 62: wraps are reconstructed in the clear for a public division.",
        openings.wraps_opened,
    ),
    Control(
        "second frame for one step taken",
        "active",
        "Messages not bound to their place in a run (mpcsec.org, Context Binding; MP-SPDZ 0.4.4: missing context, "
        "earlier checking).",
        deployment.second_frame_taken,
    ),
)

KEYS = (
    Control(
        "corrections of a key not masked",
        "exact",
        "Function keys: one root is no secret, so that the other party expands both keys.",
        keys.corrections_not_masked,
    ),
    Control(
        "one root for all keys of a call",
        "simulation",
        "Function keys: a batch with one seed. Truth tables have no root: the bytes of keys must show it.",
        keys.one_root_for_all_keys,
    ),
    Control(
        "share of a truth table used in two steps",
        "exact",
        "Function keys: a root without its step in its address, as preprocessing that is used twice.",
        keys.root_in_two_steps,
    ),
    Control(
        "one mask for a ReLU's value and its bit",
        "exact",
        "Function keys: both come of one key and go out in one exchange.",
        keys.one_mask_for_value_and_bit,
    ),
    Control(
        "bit of a threshold opened",
        "exact",
        "Function keys: a branch on a comparison in place of a selection.",
        keys.threshold_bit_opened,
    ),
    Control(
        "window that begins at the secret index",
        "exact",
        "Function keys: a table that is read only where it is needed, an access pattern.",
        keys.window_begins_at_the_index,
    ),
    Control(
        "digit of a mask told with its table",
        "exact",
        "Dealt tables: sent as they are, with the place where each begins, in place of a rotated copy.",
        keys.digit_of_a_mask_told,
    ),
)

#: All of them, in the order in which they are reported.
CONTROLS: tuple[Control, ...] = PLANNED + RECORDED + KEYS
