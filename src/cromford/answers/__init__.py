"""What a daemon's API answers, as types: one module a subject. It knows no other room.

A docstring here is also read by those who never see this code: it describes its object in the
API's document. What a field holds is said by its unit, in `units`;
None where the docstring says so, or where there is nothing yet.
"""
