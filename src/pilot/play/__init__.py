"""`pilot play`: talk to a policy in a simulated home, in a browser; take over, record, and teach it."""
