"""The claims of the theory of Wasserstein GANs, each as a short script that makes a figure and measures a number.

``wgan-fast reproduce all`` runs them. Each module holds one claim: its docstring states it, and its ``run`` shows it.
"""
