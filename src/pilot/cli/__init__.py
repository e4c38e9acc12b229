"""The command line: `main` reads a verb, `settings` reads `--set`, and each verb is one file."""
