"""Factories and plans as pictures: SVG, made of the documents that are shown elsewhere as text.

Nothing here asks anybody, and nothing is drawn that is not in the document. A picture holds no
script and refers to nothing outside itself, so it may be mailed, printed, or put on a page.
"""
