"""The tasks of the lab, one file each, with a `TASK`: what stands on the table, what is asked, and how it is done."""
