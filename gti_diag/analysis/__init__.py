"""A checkpoint becomes an analysis: rows of a group, its measures, its relation to text, exhibits, levels, RSA, drift, verdict.

The result is a document of plain values (see `gti_diag.document`); nothing is drawn or written here.
"""
