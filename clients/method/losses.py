"""The loss terms, one value per example each, so that a private trainer can clip examples where that is meaningful.

Notation: B batch, D width, C classes; z = I~ float[B, D] adapted features of unit length, text_features float[C, D]
of unit length, labels int64[B]. `p` belongs to the MLP, `q` to the FAM.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(z: Tensor, text_features: Tensor, labels: Tensor, logit_scale: float) -> Tensor:
    """Return float[B]: the symmetric CLIP loss of each image in its batch; their mean is L_contr.

    Images of one class are each other's false negatives, and every value depends on the whole batch (not for
    example-level privacy).

    Paper: L_contr.
    """
    logits = logit_scale * z @ text_features[labels].T
    targets = torch.arange(len(z), device=z.device)
    by_image = F.cross_entropy(logits, targets, reduction="none")
    by_text = F.cross_entropy(logits.T, targets, reduction="none")
    return (by_image + by_text) / 2


def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return float[B]: the cross entropy of each example.

    On the MLP's logits this is L_MLP (paper); on logit_scale * z @ text_features.T it is the class-prompt loss, which
    replaces L_contr.
    """
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def entropy(log_probabilities: Tensor) -> Tensor:
    """Return float[B]: the Shannon entropy (nats) of each row of float[B, C]."""
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def entropy_share(first: Tensor, second: Tensor) -> Tensor:
    """Return H(first) / (H(first) + H(second)) float[B] of log probabilities float[B, C]; 1/2 where both are 0."""
    a, b = entropy(first), entropy(second)
    total = a + b
    return torch.where(total > 0, a / total.clamp_min(torch.finfo(total.dtype).tiny), 0.5)


def class_wise_distillation(
    mlp_logits: Tensor, similarities: Tensor, fam_logits: Tensor, *, temperature: float, adaptive: bool
) -> Tensor:
    """Return (1/C) sum_c [w_i q_i^c log(q_i^c/p_i^c) + (1 - w_i) p_i^c log(p_i^c/q_i^c)] float[B]; the sum is L_sim.

    p^c and q^c are softmaxes over the batch of class c's column of logits, divided by the temperature. `similarities`
    are the cosines z @ text_features.T without logit scale. w_i = H(q_i) / (H(p_i) + H(q_i)) is the entropy share of
    the FAM's prediction of example i (over the classes, from `fam_logits`), taken as a constant; with adaptive=False it
    is 1/2, as in the reference code.

    Paper: L_sim.
    """
    log_p = F.log_softmax(mlp_logits / temperature, dim=0)
    log_q = F.log_softmax(similarities / temperature, dim=0)
    weight = _fam_share(mlp_logits, fam_logits, adaptive)[:, None]
    p, q = log_p.exp(), log_q.exp()
    return (weight * q * (log_q - log_p) + (1 - weight) * p * (log_p - log_q)).mean(dim=1)


def per_example_distillation(mlp_logits: Tensor, fam_logits: Tensor, *, temperature: float, adaptive: bool) -> Tensor:
    """Return w_i KL(p_i* || q_i) + (1 - w_i) KL(q_i* || p_i) float[B]; teachers * are constants, the mean is L_sim.

    The softmaxes run over the classes, of mlp_logits and fam_logits divided by the temperature: no
    example sees another one. w_i is the entropy share of the FAM, so the less certain side learns more; with
    adaptive=False it is 1/2.

    Paper: a departure from L_sim (docs/method.md).
    """
    log_p = F.log_softmax(mlp_logits / temperature, dim=-1)
    log_q = F.log_softmax(fam_logits / temperature, dim=-1)
    weight = _fam_share(mlp_logits, fam_logits, adaptive)
    p, q = log_p.detach(), log_q.detach()
    to_fam = (p.exp() * (p - log_q)).sum(-1)
    to_mlp = (q.exp() * (q - log_p)).sum(-1)
    return weight * to_fam + (1 - weight) * to_mlp


def _fam_share(mlp_logits: Tensor, fam_logits: Tensor, adaptive: bool) -> Tensor:
    if not adaptive:
        return mlp_logits.new_full((len(mlp_logits),), 0.5)
    with torch.no_grad():
        return entropy_share(F.log_softmax(fam_logits, dim=-1), F.log_softmax(mlp_logits, dim=-1))
