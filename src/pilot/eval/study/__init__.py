"""Experiments as commands: what is each ingredient of the recipe worth? `pilot study NAME`.

| file          | what it does                                                                                |
|---------------|---------------------------------------------------------------------------------------------|
| `declare.py`  | what a study is made of: a question, conditions, trials, measures; one file each in `studies/` |
| `measures.py` | what is counted of an episode                                                                |
| `parts.py`    | the parts of the work: sets to collect, trainings, evaluations; each a folder keyed by its content |
| `plan.py`     | a study as parts in order, shared where conditions agree; hours, and what can be seen        |
| `engine.py`   | runs what fits the budget, goes on where it was stopped                                      |
| `findings.py` | measures with intervals, each condition paired with the baseline in the same scenes          |
| `fits.py`     | success over the number of homes: log-linear against saturating                              |
| `drawing.py`  | the plot, an SVG for pages by day and by night                                               |
| `page.py`     | the page of a study, and its lines for `docs/results.md`                                     |
"""
