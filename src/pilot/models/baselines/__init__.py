"""What the family is compared with: ACT, Diffusion Policy, Octo."""
