"""Claims of the theory of Wasserstein GANs, each as a short script that draws a figure and measures numbers.

``wgan-fast reproduce all`` runs them. Each module tests one claim: the first paragraph of its docstring states it, and
its ``run`` measures it. They need ``pip install '.[train]'``, and use public names of the library only.
"""

#: The experiments, in the order of a lecture.
CHAPTERS = {
    "Transport: cost, plans, duality": ("transport_plans", "duality", "integral_probability_metrics"),
    "Divergences": (
        "maximum_likelihood",
        "mode_seeking",
        "optimal_discriminator",
        "parallel_lines",
        "convergence_hierarchy",
    ),
    "How GANs fail": ("manifolds", "low_dimensional_manifolds", "alternative_gradient", "mode_collapse"),
    "The Wasserstein GAN": (
        "continuity",
        "gradient_identity",
        "discriminator_and_critic",
        "estimate_tracks_quality",
        "no_balancing",
        "no_careful_architecture",
        "samples_get_better",
    ),
    "Clipping, and the penalty": ("clipping", "penalty_bias"),
    "Slips in lecture notes": ("errata",),
}
NAMES = tuple(name for names in CHAPTERS.values() for name in names)
