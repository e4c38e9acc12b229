"""Work on whole data sets: import recordings, annotate subtasks, check quality."""
