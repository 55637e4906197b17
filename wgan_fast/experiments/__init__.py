"""Claims of the theory of Wasserstein GANs, each as a short script that draws a figure and measures numbers.

``wgan-fast reproduce all`` runs them. Each module tests one claim: the first paragraph of its docstring states it, and
its ``run`` measures it. They need ``pip install 'wgan_fast[train]'``, and use public names of the library only.
"""

#: The experiments, in the order of a lecture.
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
