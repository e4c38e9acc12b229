"""How good a policy is and why: episodes in homes that it has never seen, reports, and pages about data and models."""
