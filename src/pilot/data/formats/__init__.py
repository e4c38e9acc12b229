"""Readers and writers of data sets: one file per format behind the base in `episodes.py` and `image_text.py`."""
