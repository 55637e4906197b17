"""What a step is made of: the backends that run it, and what applies its gradients."""
