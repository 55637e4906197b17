"""The claims of the theory of Wasserstein GANs, each as a short script that makes a figure and measures a number.

``wgan-fast reproduce all`` runs them. Each module holds one claim: its docstring states it, and its ``run`` shows it.
What they need beyond the library comes with ``pip install 'wgan_fast[train]'``.
"""

#: The experiments, in the order in which a lecture would tell them.
NAMES = (
    "transport_plans",
    "optimal_discriminator",
    "parallel_lines",
    "low_dimensional_manifolds",
    "discriminator_and_critic",
    "continuity",
    "gradient_identity",
    "mode_seeking",
    "estimate_tracks_quality",
    "mode_collapse",
    "clipping",
    "duality",
)
