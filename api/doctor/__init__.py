"""What is wrong with a set-up, and how to mend it: every check that can be made is made, each within a few seconds.

A check that leans on a server that is not there is `not checked`, not a fault of its own. No check changes anything,
and no secret is ever in what it says: of an error only its kind is told, unless the text is ours.
"""
