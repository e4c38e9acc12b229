"""Policies over a network, in the protocol that openpi's public client speaks."""
