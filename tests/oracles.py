"""Test oracles: slow, plain numpy versions of the estimators and exact discrete populations.

They share no code with the library. Source of the method: Mazaheri, Squires, Uhler 2025,
"Synthetic Potential Outcomes and Causal Mixture Identifiability" (below: MSU 2025).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Rng = np.random.Generator


def moment_tensor(z: Array, x: Array, y: Array, t: Array, weight: Array, num_arms: int) -> Array:
    """M[t] = E[1{T=t} phi_z (x) phi_x (x) phi_y], one row at a time; (a, d_z, d_x, d_y)."""
    tensor = np.zeros((num_arms, z.shape[1], x.shape[1], y.shape[1]))
    total = float(np.sum(weight))
    for row in range(len(t)):
        outer = np.multiply.outer(np.multiply.outer(z[row], x[row]), y[row])
        tensor[int(t[row])] += weight[row] / total * outer
    return tensor


@dataclass
class Population:
    """Discrete level-3 population: X indep. of (Z, T, Y) given U, Z indep. of Y given (T, U)."""

    shares: Array  # (k,) P(U=u)
    p_zt: Array  # (k, a, d_z) P(T=t, Z=z | U=u)
    p_x: Array  # (k, d_x) P(X=x | U=u)
    p_y: Array  # (k, a, d_y) P(Y=y | T=t, U=u)
    outcome_values: Array  # (d_y,)

    def joint(self) -> Array:
        """P(T, Z, X, Y) = sum_u pi_u P(T,Z|u) P(X|u) P(Y|T,u); (a, d_z, d_x, d_y)."""
        k, a, d_z = self.p_zt.shape
        d_x, d_y = self.p_x.shape[1], self.p_y.shape[2]
        p = np.zeros((a, d_z, d_x, d_y))
        for u, t, z, x, y in np.ndindex(k, a, d_z, d_x, d_y):
            proxies = self.p_zt[u, t, z] * self.p_x[u, x]
            p[t, z, x, y] += self.shares[u] * proxies * self.p_y[u, t, y]
        return p

    def class_means(self) -> Array:
        """mu[t, u] = E[Y(t) | U=u]; (a, k)."""
        (k, a, _), v = self.p_y.shape, self.outcome_values
        return np.array([[self.p_y[u, t] @ v for u in range(k)] for t in range(a)])

    def effects(self) -> Array:
        """delta_u = E[Y(1) - Y(0) | U=u], in the order of the classes as built."""
        return self.class_means()[1] - self.class_means()[0]

    def treated_shares(self) -> Array:
        """P(U=u | T=1) by Bayes' rule, in the order of the classes as built."""
        mass = [self.shares[u] * np.sum(self.p_zt[u, 1]) for u in range(len(self.shares))]
        return np.array(mass) / np.sum(mass)

    def potential_means(self) -> Array:
        """E[Y(t)] for each arm; (a,)."""
        return np.array([float(np.sum(self.shares * mu)) for mu in self.class_means()])

    def ate(self) -> float:
        """E[Y(1) - Y(0)]."""
        return sum(float(p * d) for p, d in zip(self.shares, self.effects(), strict=True))

    def att(self) -> float:
        """E[Y(1) - Y(0) | T=1]."""
        return sum(float(p * d) for p, d in zip(self.treated_shares(), self.effects(), strict=True))

    def law(self, treated: bool = False) -> tuple[Array, Array]:
        """(effects, shares) by increasing effect; shares among the treated on request."""
        shares, order = self.treated_shares() if treated else self.shares, self.effects().argsort()
        return self.effects()[order], shares[order]

    def counts(self, rng: Rng, n: int) -> Array:
        """Multinomial cell counts of n rows, in the shape of the joint."""
        p = self.joint()
        return rng.multinomial(n, p.ravel() / p.sum()).reshape(p.shape)


def _binary(shares: Array, p_z: Array, p_t1: Array, p_x: Array, p_y1: Array) -> Population:
    """Two arms, outcome 0/1: P(Z|U) and P(T=1|Z,U) are (k, d_z), p_y1[u, t] = P(Y(t)=1|U=u)."""
    p_zt = np.stack([p_z * (1 - p_t1), p_z * p_t1], axis=1)
    p_y = np.stack([1 - p_y1, p_y1], axis=-1)
    return Population(shares, p_zt, p_x, p_y, np.array([0.0, 1.0]))


def block(k: int, d: int) -> Array:
    """Class u: 0.8 evenly on the levels i with i mod k = u, 0.2 evenly on the others; (k, d)."""
    p = np.zeros((k, d))
    for u in range(k):
        own = [i for i in range(d) if i % k == u]
        rest = [i for i in range(d) if i % k != u]
        p[u, own] = (0.8 if rest else 1.0) / len(own)
        p[u, rest] = 0.2 / max(len(rest), 1)
    return p


def strong(rng: Rng, k: int, d_z: int, d_x: int) -> Population:
    """Draw separated classes: block proxies, effects spread over [-.75, .75] with jitter .05."""
    shares = rng.dirichlet(np.full(k, 20.0))
    p_t1 = rng.uniform(0.15, 0.85, (k, d_z))
    effects = np.linspace(-0.75, 0.75, k) + rng.uniform(-0.05, 0.05, k)
    p_y1 = np.stack([0.5 - effects / 2, 0.5 + effects / 2], axis=1)
    return _binary(shares, block(k, d_z), p_t1, block(k, d_x), p_y1)


def generic(rng: Rng, k: int, d_z: int, d_x: int, min_gap: float = 0.0) -> Population:
    """Dirichlet(1) proxies and arms, uniform outcome; redrawn until effects are min_gap apart."""
    while True:
        shares = rng.dirichlet(np.full(k, 5.0))
        p_zt = np.array([rng.dirichlet(np.ones(2 * d_z)).reshape(2, d_z) for _ in range(k)])
        p_x = np.array([rng.dirichlet(np.ones(d_x)) for _ in range(k)])
        p1 = rng.uniform(0, 1, (k, 2))
        pop = Population(shares, p_zt, p_x, np.stack([1 - p1, p1], -1), np.array([0.0, 1.0]))
        if k == 1 or np.min(np.diff(np.sort(pop.effects()))) >= min_gap:
            return pop


def paper_main(zt: float) -> Population:
    """Binary population of MSU 2025, main text, with xy = 0: k = 2, effects -3/4 and 3/4."""
    p_w = np.array([[0.75, 0.25], [0.25, 0.75]])  # Z and X alike; rows are classes
    p_t1 = np.array([[0.75, 0.75 - zt / 2], [0.25 + zt / 2, 0.25]])  # [u, z]
    p_y1 = np.array([[7 / 8, 1 / 8], [1 / 8, 7 / 8]])  # [u, t]
    return _binary(np.array([0.5, 0.5]), p_w, p_t1, p_w, p_y1)


def paper_appendix() -> Population:
    """Binary population of MSU 2025, appendix: two proxies a side, coded jointly; effects 0, 1/2.

    P(W_i=1|U) = bias_i + 0.3 U (i even), bias_i + 0.3 (1-U) (i odd); level = 2 first + second.
    """
    bias, p_w = np.linspace(0.2, 0.6, 4), np.zeros((2, 2, 4))  # [side, u, level]
    for side, u, first, second in np.ndindex(2, 2, 2, 2):
        one, two = bias[2 * side] + 0.3 * u, bias[2 * side + 1] + 0.3 * (1 - u)
        p_w[side, u, 2 * first + second] = abs(1 - first - one) * abs(1 - second - two)
    p_t1 = np.array([[0.75] * 4, [0.25] * 4])
    p_y1 = np.array([[0.25 + 0.25 * (u == t) + 0.25 * t for t in range(2)] for u in range(2)])
    return _binary(np.array([0.5, 0.5]), p_w[0], p_t1, p_w[1], p_y1)


def _design(n: int, *blocks: Array | None) -> Array:
    """Columns side by side, after a column of ones (vectors count as one column)."""
    given = [np.asarray(b, dtype=float) for b in blocks if b is not None]
    return np.column_stack([np.ones(n), *given])


def _lengths(design: Array) -> Array:
    """Root mean square of each column, 1 for a column of zeros."""
    return np.sqrt(np.mean(design**2, axis=0)) + (design == 0).all(axis=0)


def _regress(design: Array, target: Array) -> Array:
    """Ordinary least squares on columns scaled to one length; coefficients in raw units."""
    coef = np.linalg.lstsq(design / _lengths(design), target, rcond=1e-12)[0]
    return (coef.T / _lengths(design)).T


def _two_stage(y: Array, r: Array, w: Array) -> tuple[Array, Array]:
    """Two-stage least squares of y on r by instruments w; coefficients and their influences.

    Influence of row i, divided by n: (Rhat' Rhat)^-1 rhat_i (y_i - r_i beta).
    """
    fitted = w @ _regress(w, r)
    beta = _regress(fitted, y)
    scale = _lengths(fitted)
    gram = (fitted / scale).T @ (fitted / scale)
    bread = np.linalg.pinv(gram, rcond=1e-12, hermitian=True) / np.outer(scale, scale)
    influence = np.array([bread @ fitted[i] * (y[i] - r[i] @ beta) for i in range(len(y))])
    return beta, influence


def bridge_by_arm(
    y: Array, t: Array, z: Array, x: Array, covariates: Array | None = None, estimand: str = "ATE"
) -> tuple[float, Array, float]:
    """(value, potential means (a,), se). M_zx,t alpha_t = M_zy,t in each arm (MSU 2025, step 1).

    ATE: E[phi_x] (alpha_1 - alpha_0). ATT: E[Y|T=1] - E[phi_x|T=1] alpha_0; potential means are
    then those of the treated. se = sqrt(sum psi^2) / n, psi with the sampling of mean(phi_x).
    """
    n, y, t = len(y), np.asarray(y, dtype=float), np.asarray(t).astype(int)
    r, w = _design(n, covariates, x), _design(n, covariates, z)
    if estimand == "ATT":
        num_treated = int(np.sum(t == 1))
        mean_r = np.mean(r[t == 1], axis=0)
        alpha, influence = _two_stage(y[t == 0], r[t == 0], w[t == 0])
        means = np.array([mean_r @ alpha, np.mean(y[t == 1])])
        value, psi = means[1] - means[0], np.zeros(n)
        psi[t == 1] = n / num_treated * (y[t == 1] - r[t == 1] @ alpha - value)
        psi[t == 0] = -n * influence @ mean_r
        return float(value), means, float(np.sqrt(np.sum(psi**2)) / n)
    mean_r, means, psis = np.mean(r, axis=0), [], []
    for arm in range(t.max() + 1):
        own = t == arm
        alpha, influence = _two_stage(y[own], r[own], w[own])
        means.append(mean_r @ alpha)
        psi = r @ alpha - means[-1]
        psi[own] += n * influence @ mean_r
        psis.append(psi)
    se = np.sqrt(np.sum((psis[1] - psis[0]) ** 2)) / n
    return float(means[1] - means[0]), np.array(means), float(se)


def bridge_pooled(y: Array, t: Array, z: Array, x: Array, covariates=None) -> tuple[float, float]:
    """(b, HC0 se) of E[Y|Z,T] = b T + alpha E[phi_x|Z,T]: proximal two-stage least squares."""
    r, w = _design(len(y), t, covariates, x), _design(len(y), t, covariates, z)
    beta, influence = _two_stage(np.asarray(y, dtype=float), r, w)
    return float(beta[1]), float(np.sqrt(np.sum(influence[:, 1] ** 2)))


def overidentification_j(y: Array, t: Array, z: Array, x: Array, covariates=None):
    """(J, df) summed over the arms: Hansen's J of the by-arm bridge, efficient two-step GMM.

    S = mean(e_i^2 w_i w_i'), uncentred, e of two-stage least squares; J = n gbar' S^-1 gbar.
    """
    y, t, statistic, df = np.asarray(y, dtype=float), np.asarray(t), 0.0, 0
    design_r, design_w = _design(len(y), covariates, x), _design(len(y), covariates, z)
    for arm in range(int(t.max()) + 1):
        r, w, y_arm = design_r[t == arm], design_w[t == arm], y[t == arm]
        r, w = r / _lengths(r), w / _lengths(w)
        beta, n = _two_stage(y_arm, r, w)[0], len(y_arm)
        s = np.zeros((w.shape[1], w.shape[1]))
        for i in range(n):
            s += (y_arm[i] - r[i] @ beta) ** 2 * np.outer(w[i], w[i]) / n
        s_inverse = np.linalg.pinv(s, rcond=1e-10, hermitian=True)
        wr, wy = w.T @ r / n, w.T @ y_arm / n
        beta = np.linalg.pinv(wr.T @ s_inverse @ wr, rcond=1e-12) @ wr.T @ s_inverse @ wy
        g = wy - wr @ beta
        statistic += n * float(g @ s_inverse @ g)
        df += int(np.linalg.matrix_rank(w) - np.linalg.matrix_rank(r))
    return statistic, df


def _arm_moments(cells: Array, outcome_values: Array) -> tuple[Array, Array, Array]:
    """(M_zx (a, d_z, d_x), M_zxy (a, d_z, d_x), E[phi_x] (d_x,)) of counts or probabilities."""
    p = np.asarray(cells, dtype=float) / np.sum(cells)
    m_zx, m_zxy = np.zeros(p.shape[:3]), np.zeros(p.shape[:3])
    for level, value in enumerate(outcome_values):
        m_zx += p[..., level]
        m_zxy += value * p[..., level]
    return m_zx, m_zxy, m_zx.sum(axis=(0, 1))


def _pinv_rank(matrix: Array, rank: int | None) -> Array:
    """Pseudo-inverse, plain (rank None) or from the leading `rank` singular values alone."""
    if rank is None:
        return np.linalg.pinv(matrix)
    left, s, right = np.linalg.svd(matrix, full_matrices=False)
    return sum(np.outer(right[i], left[:, i]) / s[i] for i in range(rank))


def synthetic_moments(cells: Array, order: int, outcome_values: Array, rank=None) -> Array:
    """m_0..m_order: m_l = E[phi_x] gamma_l, gamma_1 = alpha_1 - alpha_0, gamma_l+1 = D gamma_l."""
    m_zx, m_zxy, mean_x = _arm_moments(cells, outcome_values)
    inverse = [_pinv_rank(m_zx[t], rank) for t in range(2)]
    quotient = inverse[1] @ m_zxy[1] - inverse[0] @ m_zxy[0]
    gamma = inverse[1] @ m_zxy[1].sum(axis=1) - inverse[0] @ m_zxy[0].sum(axis=1)
    moments = [1.0]
    for _ in range(order):
        moments.append(float(mean_x @ gamma))
        gamma = quotient @ gamma
    return np.array(moments)


def prony(moments: Array, k: int) -> tuple[Array, Array]:
    """(effects, shares) from m_0..m_{2k-1}: null vector of the k x (k+1) Hankel, Vandermonde."""
    hankel = np.array([[moments[i + j] for j in range(k + 1)] for i in range(k)])
    null = np.linalg.svd(hankel)[2][-1]
    effects = np.roots(null[::-1])
    vandermonde = np.array([[effect**power for effect in effects] for power in range(k)])
    shares = np.linalg.solve(vandermonde, moments[:k])
    order = effects.real.argsort(kind="stable")
    return effects[order], shares[order]


def spo_published(cells: Array, k: int, outcome_values: Array) -> tuple[Array, Array]:
    """(effects, shares), possibly complex: SPO with a plain pseudo-inverse, as in MSU 2025."""
    return prony(synthetic_moments(cells, 2 * k - 1, outcome_values), k)


def spo_rank_k(cells: Array, k: int, outcome_values: Array) -> tuple[Array, Array]:
    """(effects, shares), possibly complex: SPO with pseudo-inverses truncated at rank k."""
    return prony(synthetic_moments(cells, 2 * k - 1, outcome_values, rank=k), k)


def project_simplex(v: Array) -> Array:
    """Euclidean projection on the simplex: max(v - theta, 0), theta by trying support sizes."""
    descending = np.sort(v)[::-1]
    thetas = [(np.sum(descending[:size]) - 1) / size for size in range(1, len(v) + 1)]
    theta = [b for v_i, b in zip(descending, thetas, strict=True) if v_i > b][-1]
    return np.maximum(v - theta, 0.0)


def spectral(cells: Array, k: int, outcome_values: Array, project: bool = True):
    """(effects, shares, B (d_x, k)) from the k x k operator similar to diag(delta).

    V: leading right singular vectors of the stacked M_zx,t; left eigenvectors times V', scaled to
    sum 1, are the rows of B'; shares B^+ E[phi_x], on the simplex if real and project is true.
    """
    m_zx, m_zxy, mean_x = _arm_moments(cells, outcome_values)
    v = np.linalg.svd(np.vstack([m_zx[0], m_zx[1]]))[2][:k].T
    arms = [np.linalg.pinv(m_zx[t] @ v) @ m_zxy[t] @ v for t in range(2)]
    effects, left = np.linalg.eig((arms[1] - arms[0]).T)
    order = np.argsort(effects.real, kind="stable")
    b = np.stack([v @ left[:, u] / np.sum(v @ left[:, u]) for u in order], axis=1)
    shares = np.linalg.pinv(b) @ mean_x
    if project and not np.iscomplexobj(shares):
        shares = project_simplex(shares)
    return effects[order], shares, b


def is_failed(effects: Array, shares: Array, outcome_values: Array, tolerance=1e-9) -> bool:
    """Not finite, complex, a share outside [0, 1] or |effect| above the outcome's range."""
    span = float(np.max(outcome_values) - np.min(outcome_values))
    for effect, share in zip(effects, shares, strict=True):
        if not np.isfinite(effect + share) or np.imag(effect) != 0 or np.imag(share) != 0:
            return True
        if abs(share.real - 0.5) > 0.5 + tolerance or abs(effect) > span + tolerance:
            return True
    return False


def quantile_of_law(effects: Array, shares: Array, q: float) -> float:
    """Smallest effect whose cumulated share reaches q."""
    total = 0.0
    for u in np.argsort(effects):
        total += shares[u]
        if total >= q - 1e-12:
            return float(effects[u])
    return float(np.max(effects))


def share_harmed(effects: Array, shares: Array, better: str = "higher") -> float:
    """P(delta_U < 0), or P(delta_U > 0) where a lower outcome is better."""
    harmed = 0.0
    for effect, share in zip(effects, shares, strict=True):
        if effect * {"higher": 1, "lower": -1}[better] < 0:
            harmed += float(share)
    return harmed


def multinomial_bootstrap_law(
    counts: Array, k: int, num_resamples: int, rng: Rng, outcome_values: Array
) -> tuple[Array, Array]:
    """(effects, shares), each (num_resamples, k), complex; rank-k SPO, NaN where it raises."""
    n, p = int(np.sum(counts)), counts.ravel() / np.sum(counts)
    laws = np.full((2, num_resamples, k), np.nan, dtype=complex)
    for b in range(num_resamples):
        cells = rng.multinomial(n, p).reshape(counts.shape)
        with suppress(np.linalg.LinAlgError):
            laws[:, b] = spo_rank_k(cells, k, outcome_values)
    return laws[0], laws[1]
