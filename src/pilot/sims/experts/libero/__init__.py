"""The expert of LIBERO's suites: it reads a task's goal from its file, and does what is still missing."""
