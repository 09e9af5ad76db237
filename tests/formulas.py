"""The update rules in plain NumPy, float64, written from the papers: one loop over steps, one array, nothing of jgd.

Each function takes the first params, the gradients of all steps, and the hyperparameters; it returns the last params
and the slots by name.
"""

import numpy as np


def gradient_descent(param, grads, *, learning_rate):
    """Cauchy 1847."""
    for g in grads:
        param = param - learning_rate * g
    return param, {}


def sgd(param, grads, *, learning_rate, momentum, nesterov=False):
    """Sutskever et al. 2013, eqs. 1-4, in the variables after the look-ahead."""
    v = np.zeros_like(param)
    for g in grads:
        v = momentum * v + g
        param = param - learning_rate * (momentum * v + g if nesterov else v)
    return param, {"trace": v}


def adam(param, grads, *, learning_rate, b1, b2, eps, eps_root=0.0, weight_decay=0.0):
    """Kingma and Ba 2014, Algorithm 1; Loshchilov and Hutter 2017, Algorithm 2, line 12, decay times learning rate."""
    m, v = np.zeros_like(param), np.zeros(param.shape)
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * np.abs(g) ** 2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        param = param - learning_rate * (m_hat / (np.sqrt(v_hat + eps_root) + eps) + weight_decay * param)
    return param, {"mu": m, "nu": v}


def nadam(param, grads, *, learning_rate, b1, b2, eps, weight_decay=0.0):
    """Dozat 2016, Algorithm 2, without its factor b2 on the second moment and with one momentum for all steps."""
    m, v = np.zeros_like(param), np.zeros(param.shape)
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * np.abs(g) ** 2
        m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        param = param - learning_rate * (m_hat / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * param)
    return param, {"mu": m, "nu": v}


def amsgrad(param, grads, *, learning_rate, b1, b2, eps, correct=True):
    """Reddi, Kale and Kumar 2018, Algorithm 2; with `correct`, both moments corrected before the maximum."""
    m, v, v_max = np.zeros_like(param), np.zeros(param.shape), np.zeros(param.shape)
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * np.abs(g) ** 2
        v_max = np.maximum(v_max, v / (1 - b2**t) if correct else v)
        param = param - learning_rate * (m / (1 - b1**t) if correct else m) / (np.sqrt(v_max) + eps)
    return param, {"mu": m, "nu": v, "nu_max": v_max}


def lion(param, grads, *, learning_rate, b1, b2, weight_decay):
    """Chen et al. 2023, Algorithm 2."""
    m = np.zeros_like(param)
    for g in grads:
        c = b1 * m + (1 - b1) * g
        param = param - learning_rate * (np.sign(c) + weight_decay * param)
        m = b2 * m + (1 - b2) * g
    return param, {"mu": m}


def newton_schulz(x, coeffs, steps, eps):
    """Jordan 2024: the quintic iteration, on the wide form of the matrix."""
    a, b, c = coeffs
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (np.sqrt(np.sum(np.abs(x) ** 2)) + eps)
    for _ in range(steps):
        gram = x @ x.conj().T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def muon(param, grads, *, learning_rate, beta, eps, weight_decay, coeffs=(3.4445, -4.7750, 2.0315), steps=5):
    """Jordan 2024 with the bias correction of optax; `[in, out]` matrices, scaled by sqrt(max(1, out / in))."""
    m = np.zeros_like(param)
    for t, g in enumerate(grads, start=1):
        m = beta * m + (1 - beta) * g
        m_hat = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        scale = np.sqrt(max(1.0, param.shape[1] / param.shape[0]))
        step = scale * newton_schulz(m_hat, coeffs, steps, eps) + weight_decay * param
        param = param - learning_rate * step
    return param, {"mu": m}
