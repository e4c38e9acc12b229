"""Other people's formats as LeRobot v3.0: one file per format, each with an `IMPORTER`; the folder is the list.

A format's file says how its folders are recognised and how one episode is read; `data/tools/import_recordings.py`
does the rest.
"""
