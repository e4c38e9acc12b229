"""From data sets to batches: shuffled order, windows of video, worker processes, the loader."""
