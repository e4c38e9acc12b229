"""Pages for people: evaluation reports, data sets, what a model sees."""
